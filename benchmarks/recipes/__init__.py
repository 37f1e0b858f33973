"""What is trained for each row: functions of a task's widths and budget."""
