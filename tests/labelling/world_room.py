"""A workdir of the miniature world, as a recipe leaves it for its labelers."""

import json
from pathlib import Path

from instructgpt.labelling.room import Room
from instructgpt.labelling.simulated import groups_of
from instructgpt.world import World
from tests.labelling import rooms

SEED = 3
SIZES = {"prompts": (0, 0, 8), "gpt_prompts": (0, 0, 3)}


def answered(world: World, split: str, number: int) -> list[dict]:
    """Prompts with five answers each: a good one, others', and one written twice."""
    prompts = world.rm_prompts(split, number)
    rows = []
    for i, prompt in enumerate(prompts):
        texts = [world.demonstrate(prompt, 10 * i + j) for j in range(3)]
        texts += [world.ideal(prompt), texts[0]]
        rows.append({**prompt.record(), "responses": texts})
    return rows


def make(folder: Path, *, train: int = 20, valid: int = 6) -> tuple[Path, World]:
    """The workdir, with answers to rank and models' answers to judge."""
    world = World(0)
    for split, number in (("train", train), ("valid", valid)):
        path = folder / "label" / f"answers.{split}.jsonl"
        rooms.write_lines(path, answered(world, split, number))
    config = {"seed": SEED, "data": {"jsonl": "", "world_seed": 0, **SIZES}}
    for stage in ("label", "evaluate"):
        (folder / stage).mkdir(exist_ok=True)
        (folder / stage / "config.json").write_text(json.dumps(config))
    prompts = world.ppo_prompts("test", 8) + world.gpt_prompts("test", 3)
    rows = [
        {"id": p.record()["id"], "prompt": p.text, "model": model, "response": text}
        for model, number in (("sft", 1), ("ppo", 2), ("copy", 1))
        for p in prompts
        for text in [world.demonstrate(p, number)]
    ]
    rooms.write_lines(folder / "evaluate" / "answers.jsonl", rows)
    return folder, world


def world_labelers(folder: Path, world: World) -> Room:
    """The room with the world's twenty labelers."""
    room = Room(folder)
    room.add(groups_of(world))
    return room
