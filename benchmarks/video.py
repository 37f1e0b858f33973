"""Film an episode of an agent, with the plan that it follows drawn into the scene.

    python benchmarks/video.py --env maze2d-large --output maze.gif
    python benchmarks/video.py --env memory-swap --agent next-token --until failure --output failure.gif

A plan is drawn as the places of what moves: the particle of a maze, an arm's effector and the cubes. Robots need OpenGL, which
also draws without a display.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dfplan import command
from dfplan.agents.episodes import SUCCESS
from dfplan.benchmarks import own, play, protocol, rows
from dfplan.benchmarks.wanted import wanted
from dfplan.envs import sight
from dfplan.envs.registry import Task, find
from dfplan.whole_files import write_whole

COLORS = ((232, 119, 34), (43, 108, 196), (22, 148, 106), (155, 79, 224))
"""Colors of a plan's lines, in their order."""
SMOOTH, FOOTER = 3, 24
"""Plans are drawn this many times larger, then averaged down; height in pixels of the text below a frame."""
MOST_EPISODES, MOST_FRAMES = 100, 150
MILLISECONDS = 60
"""How long a frame is shown."""


@dataclass(frozen=True)
class Arguments:
    """What to film."""

    env: str = "maze2d-large"
    """Environment, with or without its version."""
    agent: str = "diffusion-forcing"
    """A row of the benchmark, or package.module:Class for your own agent."""
    seed: int = 0
    """Reset seed of the episode."""
    until: Literal["success", "failure"] | None = None
    """Play the seeds after it too, and film the first episode that ends so."""
    side: int = 320
    """Pixels of a frame from left to right."""
    output: Path = Path("episode.gif")
    """The file, a GIF."""


def film(agent: Any, where: Task, env: gymnasium.Env[Any, Any], seed: int, side: int) -> tuple[list[np.ndarray], bool]:
    """The frames (height, width, 3) of an episode, about `MOST_FRAMES` of a long one, and whether it succeeded."""
    observation, every = protocol.begin(agent, env, where.env_id, seed), -(-where.max_episode_steps // MOST_FRAMES)
    seen, frames, success, ended = sight.of(env, side), [], False, False
    try:
        for step in count():
            action = None if ended else agent.act(observation)
            if ended or step % every == 0:
                plan = agent.followed() if hasattr(agent, "followed") else None
                places = {} if plan is None else rows.suite_of(where).places(where, plan)
                frame, text = seen.frame(), f"step {step}{', success' if success else ''}"
                plans = {name: seen.pixels(part) for name, part in places.items()}
                frames.append(drawn(frame, plans, text, side))
            if ended:
                return frames, success
            observation, _, terminated, truncated, info = env.step(action)
            success = success or any(info.get(name) for name in SUCCESS)
            ended = terminated or truncated
    finally:
        seen.close()
    raise AssertionError("episodes end")


def ending(agent: Any, where: Task, seed: int) -> str:
    """How an episode ends."""
    success = protocol.play(agent, where.env_id, [seed]).success
    return "success" if success and success[0] else "failure"


def drawn(frame: np.ndarray, plans: Mapping[str, np.ndarray], text: str, width: int) -> np.ndarray:
    """A frame, made `width` pixels wide, with a line through the pixels (S, 2) of each plan, and a line of text below."""
    scale = width / frame.shape[1]
    size = (width, round(frame.shape[0] * scale))
    over = Image.new("RGBA", (size[0] * SMOOTH, size[1] * SMOOTH))
    pen, named = ImageDraw.Draw(over), list(zip(plans, COLORS, strict=False))
    for name, color in named:
        line = [tuple(point) for point in (plans[name] * scale * SMOOTH).tolist()]
        pen.line(line, (255, 255, 255, 110), 5 * SMOOTH, joint="curve")
        pen.line(line, (*color, 230), 2 * SMOOTH, joint="curve")
        pen.circle(line[-1], 3 * SMOOTH, (*color, 255))
    below = Image.fromarray(frame).convert("RGBA").resize(size, Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (width, size[1] + FOOTER), (250, 250, 248))
    whole.paste(Image.alpha_composite(below, over.reduce(SMOOTH)).convert("RGB"))
    pen, font, right = ImageDraw.Draw(whole), ImageFont.load_default(13), width - 6.0
    pen.text((6, size[1] + 4), text, (40, 46, 60), font)
    for name, color in reversed(named):
        right -= pen.textlength(name, font)
        pen.text((right, size[1] + 4), name, color, font)
        right -= 10
    return np.asarray(whole)


@command.with_arguments(Arguments, __doc__)
def main(arguments: Arguments) -> None:
    """Film the episode."""
    if arguments.output.suffix != ".gif":
        raise ValueError(f"the output is a GIF, not {arguments.output}: expected a name that ends in .gif")
    if not 32 <= arguments.side <= 2048 or arguments.seed < 0:
        raise ValueError(
            f"expected a side of 32..2048 and a seed of at least 0, got {arguments.side}, {arguments.seed}"
        )
    sight.without_display()
    where = find(arguments.env)
    cells, skipped = wanted([where], (arguments.agent,), range(1), first_only=True)
    if not cells:
        raise ValueError(" ".join(skipped))
    agent, env = play.build(cells[0]), where.make(disable_env_checker=True)
    from dfplan.benchmarks.report.pictures import gif  # late: matplotlib takes a second to import

    for seed in range(arguments.seed, arguments.seed + MOST_EPISODES):
        with own.blamed(f"the agent {arguments.agent!r} failed on {where.env_id}"):
            if arguments.until and arguments.until != ending(agent, where, seed):  # without pictures, which take longer
                continue
            frames, success = film(agent, where, env, seed, arguments.side)
        write_whole(arguments.output, gif(frames, MILLISECONDS))
        print(f"{arguments.output}: seed {seed}, {'success' if success else 'no success'}, {len(frames)} frames")
        return
    raise ValueError(f"none of the {MOST_EPISODES} episodes from seed {arguments.seed} on ends in {arguments.until}")


if __name__ == "__main__":
    sys.exit(main())
