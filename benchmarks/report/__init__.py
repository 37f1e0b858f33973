"""Tables, plots, pages and pictures, made from result files alone."""
