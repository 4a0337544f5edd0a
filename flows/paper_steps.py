"""What is said before a paper is written, and the writing of it.

print(plan_paper(config))
summary = write_paper(config)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ccai_core.files import whole_file, write_whole
from ccai_core.paper.draft import PAPER_FILE, draft
from ccai_core.paper.material import Material
from ccai_core.paper.pandoc import convert
from flows.command import command_for
from flows.paper_config import PaperConfig
from flows.paper_material import FIGURES_FOLDER, gather
from flows.results import Summary
from infra.origin import content_name
from infra.tracking import Tracking


def plan_paper(config: PaperConfig) -> str:
    """Say what the paper would be written from, and what is missing.

    Raises:
        CCAIError: something is there and cannot be read.
    """
    material, _ = gather(config)
    found = {
        **{name: source.file for name, source in material.main.items() if source.is_there},
        **({"comparison": material.comparison.own.file} if material.comparison else {}),
    }
    lines = [f"  {name:<16} {file}" for name, file in found.items()]
    return "\n".join([f"Paper: {config.out / PAPER_FILE}", *lines, *_missing(material)])


def write_paper(config: PaperConfig) -> Summary:
    """Write the paper and its pictures, convert it where possible, and tell MLflow.

    Raises:
        CCAIError: a result cannot be read, or the paper not be written.
    """
    material, pictures = gather(config)
    for name, picture in pictures.items():
        with whole_file(config.out / FIGURES_FOLDER / f"{name}.svg") as file:
            file.write(picture.read_bytes())
    paper = config.out / PAPER_FILE
    write_whole(paper, draft(material, config.about))
    made, why_not = convert(paper) if config.pandoc else ({}, [])
    uri = _log(config, [paper, *made.values()])
    return Summary(
        made={
            "paper": str(paper),
            **{name: str(path) for name, path in made.items()},
            "tracking": uri,
        },
        findings=(f"Written from {_count(material)} results, with {len(pictures)} pictures.",),
        notices=(*_missing(material), *why_not),
    )


def _missing(material: Material) -> Iterator[str]:
    absent = [name for name, source in material.main.items() if not source.is_there]
    if material.comparison is None:
        absent.append("comparison")
    if absent:
        yield f"Not there, so the paper says not measured: {', '.join(absent)}."
    if material.constitution is None:
        yield "The constitution that was used is not described: name it with --constitution."
    yield from (f"{file} was changed since it was made." for file in material.changed)


def _count(material: Material) -> int:
    there = sum(source.is_there for source in material.main.values())
    return there + (1 if material.comparison else 0)


def _log(config: PaperConfig, files: Iterable[Path]) -> str:
    paper = config.out / PAPER_FILE
    tags = {
        "stage": "paper",
        "artifact": content_name("paper", paper),
        "command": command_for("paper", config),
    }
    tracking = Tracking(config.tracking_uri, config.experiment, config.out)
    try:
        with tracking.run("paper", tags=tags) as run:
            run.params(config.model_dump(mode="json"))
            for file in (*files, *_figures(config.out)):
                run.artifact(file, FIGURES_FOLDER if file.suffix == ".svg" else None)
    finally:
        tracking.close()
    return tracking.uri


def _figures(out: Path) -> list[Path]:
    return sorted((out / FIGURES_FOLDER).glob("*.svg"))
