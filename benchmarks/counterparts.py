"""Which rows belong to an algorithm's page, and which printed scores are about the same algorithm as a row.

A printed score was made under a protocol of its own (episode length, data, network, controller); a difference to it is
a question, not an error of either side.
"""

from __future__ import annotations

from dfplan.benchmarks.published import Published, reported

TOLERANCE_POINTS, TOLERANCE_SHARE = 15.0, 0.15
"""A measured score agrees with a printed one if it differs by at most the larger of the two: points, or that share."""

PAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "diffusion-forcing": {
        "diffusion-forcing": ("Diffusion Forcing without MCG",),
        "diffusion-forcing-mcg": ("Diffusion Forcing",),
        "diffusion-forcing-paper": ("Diffusion Forcing",),
        "short": (),
        "full-sequence": (),
        "next-token": (),
    },
    "diffuser": {
        "diffuser-pd": ("Diffuser (PD controller)",),
        "diffuser-actions": ("Diffuser (diffused actions)",),
    },
    "decision-diffuser": {"decision-diffuser": ()},
    "diffusion-veteran": {"diffusion-veteran": ("Diffusion Veteran",)},
    "behavior-cloning": {"bc": ("BC (CORL)",)},
    "iql": {"iql": ("IQL (CORL)",)},
    "cql": {"cql": ("CQL (CORL)",)},
    "td3-bc": {"td3-bc": ("TD3+BC (CORL)",)},
    "awac": {"awac": ("AWAC (CORL)",)},
    "mppi": {"mppi": ("MPPI",), "mppi-field": (), "mppi-learned": ()},
    "online-rl": {"sac": (), "td3": (), "ppo": (), "her": ()},
}
"""For each page docs/NAME.md its rows, and for each row the method's names in `published.json`."""


def printed_for(agent: str, env_id: str) -> list[Published]:
    """The printed scores of a row's own algorithm on an environment; empty where there are none."""
    methods = next((rows[agent] for rows in PAGES.values() if agent in rows), ())
    return [row for row in reported(env_id) if row.method in methods]


def agrees(measured: float, printed: float) -> bool:
    return abs(measured - printed) <= max(TOLERANCE_POINTS, TOLERANCE_SHARE * abs(printed))
