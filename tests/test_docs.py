"""The documentation says what is there: commands parse, links lead somewhere, pages are current."""

import ast
import importlib
import importlib.util
import re
import shlex

import pytest
import yaml

from ccai_core import errors
from ccai_core.constitution import load_constitutional_config
from ccai_core.episodes import GenerationConfig
from ccai_core.evaluation.config import EvaluationConfig
from ccai_core.preferences import PreferenceConfig
from ccai_core.quality import QualityConfig
from flows.cli import parse
from tests.pages import FENCE, PAGES, ROOT, SHELL, blocks, page_id, save_titled_blocks

PACKAGES = ("flows", "tasks", "infra", "ccai_core", "cluster_configs")

_COMMAND = re.compile(r"python -m flows\.(\w+)([^\n`]*)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# Paths in backticks that begin in a folder of the project, without wildcards or ellipses.
_PATH = re.compile(
    r"`((?:flows|tasks|infra|ccai_core|cluster_configs|docs|docker|tests|\.ci)/[\w./-]*)`"
)
_REGISTRIES = re.compile(
    r"pypi\.org|pythonhosted|pytorch\.org|anaconda|npmjs|registry\.(?!py)|ghcr\.io|docker\.io|quay\.io"
    r"|gcr\.io|pypi\."
)
_OUR_MACHINE = re.compile(r"(?<![\w.~$}])/(?:work|home|root|tmp|Users|mnt|data|opt)/")


def _commands(text: str) -> list[tuple[str, list[str]]]:
    """Return (flow, arguments) of every flow command in a text."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = [(flow, shlex.split(rest, comments=True)) for flow, rest in _COMMAND.findall(joined)]
    return [_with_its_command(flow, arguments) for flow, arguments in found]


def _with_its_command(flow: str, arguments: list[str]) -> tuple[str, list[str]]:
    """A flow of several commands goes by both words, as in 'human_evaluation build'."""
    both = " ".join([flow, *arguments[:1]])
    return (both, arguments[1:]) if both in _reference().FLOWS else (flow, arguments)


def _settings(flow: str) -> type:
    kinds = _reference().FLOWS
    assert flow in kinds, f"there is no flow {flow!r}"
    return kinds[flow]


def _parse(flow: str, arguments: list[str]) -> None:
    prints = getattr(importlib.import_module(f"flows.{flow.split()[0]}"), "PRINTS", {})
    helps = {name: text for name, (text, _) in prints.items()}
    prog = f"python -m flows.{flow}"
    parse(_settings(flow), prog, "", [*arguments, "--dry-run"], helps)


def _reference():
    spec = importlib.util.spec_from_file_location(
        "generate_reference", ROOT / "docs" / "generate_reference.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Return the folder of a reader who has saved every titled block of every page."""
    save_titled_blocks(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_in_a_block_parses(page, reader):
    for block in blocks(page, *SHELL):
        for flow, arguments in _commands(block.text):
            _parse(flow, arguments)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_in_a_sentence_parses(page, reader):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for flow, arguments in _commands(prose):
        _settings(flow)
        if arguments and arguments != ["--help"]:
            _parse(flow, arguments)


def test_an_option_that_does_not_exist_would_be_noticed(reader, capsys):
    ((flow, arguments),) = _commands(
        "    python -m flows.poc --preset quick \\\n  --max-pear 3  # x"
    )
    with pytest.raises(SystemExit):
        parse(_settings(flow), "poc", "", arguments)
    capsys.readouterr()


@pytest.mark.parametrize(
    "flow",
    [
        "poc",
        "preference_data",
        "training",
        "sweep",
        "evaluation",
        "validation",
        "compare",
        "human_evaluation",
        "paper",
        "release",
        "reproduce",
        "nightly",
        "promote",
        "serve",
        "stack",
    ],
)
def test_the_examples_in_a_flows_own_help_parse(flow, reader):
    about = ast.get_docstring(ast.parse((ROOT / "flows" / f"{flow}.py").read_text("utf-8")))
    commands = _commands(about)
    assert commands
    for named, arguments in commands:
        _parse(named, arguments)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_relative_link_leads_to_a_file(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [t for t in _LINK.findall(text) if not re.match(r"[a-z]+:|#", t)]
    missing = [t for t in targets if not (page.parent / t.partition("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_to_a_heading_find_it(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in _LINK.findall(text):
        path, _, anchor = target.partition("#")
        if not anchor or re.match(r"[a-z]+:", target):
            continue
        linked = (page.parent / path) if path else page
        headings = re.findall(r"^#+ (.+)$", FENCE.sub("", linked.read_text("utf-8")), re.MULTILINE)
        slugs = {re.sub(r"\W+", "-", h.casefold().replace("`", "")).strip("-") for h in headings}
        assert anchor in slugs, f"{target}: {sorted(slugs)}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8").replace("flows/NAME.py", "")
    missing = [path for path in _PATH.findall(text) if not (ROOT / path).exists()]
    assert not missing


def test_the_readme_has_every_module_in_its_tree():
    tree = _tree()
    modules = {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
    }
    # One line stands for what is not worth one of its own.
    assert "__init__.py and the shipped profile" in (ROOT / "README.md").read_text("utf-8")
    modules.remove("cluster_configs/__init__.py")
    named = {path for path, purpose in tree.items() if path.endswith(".py") and purpose}
    assert named == modules


def test_the_readme_names_no_preset_and_no_profile_that_is_not_there():
    text = (ROOT / "README.md").read_text("utf-8")
    presets = {file.name for file in (ROOT / "flows" / "presets").iterdir()}
    assert all(name in text for name in presets)
    assert all(f.name in text for f in (ROOT / "cluster_configs").glob("*.yaml"))


def _tree() -> dict[str, str]:
    """Return path to purpose of every line of the README's tree."""
    (text,) = [b.text for b in blocks(ROOT / "README.md", "text") if "├──" in b.text]
    found, at = {}, []
    for line in text.splitlines():
        entry = re.match(r"((?:│   |    )*)([├└]── )?(\S+)\s*(.*)$", line)
        if not entry or not (entry[2] or line[:1].isalpha()):
            continue
        depth = len(entry[1]) // 4 + bool(entry[2])
        at = [*at[:depth], entry[3].rstrip("/")]
        found["/".join(at)] = entry[4]
    return found


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_page_names_a_package_registry_or_a_path_of_our_machines(page):
    text = page.read_text(encoding="utf-8")
    assert not _REGISTRIES.findall(text)
    assert not _OUR_MACHINE.findall(text)


def test_the_reference_is_what_the_settings_say():
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == _reference().render(), "run `python docs/generate_reference.py`"


@pytest.mark.parametrize(
    ("page", "settings", "told_of"),
    [
        (
            "pairs.md",
            [PreferenceConfig(), GenerationConfig(), QualityConfig()],
            {"max_passes", "response_tokens", "min_words", "min_topic_overlap"},
        ),
        ("evaluation.md", [EvaluationConfig()], {"safety_prompts", "scenario_prompts"}),
    ],
)
def test_the_defaults_that_a_page_tells_are_the_defaults(page, settings, told_of):
    known = {name: value for each in settings for name, value in each.model_dump().items()}
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    told = dict(re.findall(r"`(\w+)`,? (\d[\d.]*)(?=[ ,|\n])", text))
    assert told.keys() >= told_of
    assert {name: float(value) for name, value in told.items()} == {
        name: known[name] for name in told
    }


@pytest.mark.parametrize("flow", ["poc", "preference_data", "training", "sweep", "evaluation"])
def test_the_reference_has_the_options_that_the_command_line_has(flow, capsys):
    kind = _settings(flow)
    with pytest.raises(SystemExit):
        parse(kind, "flow", "", ["--help"])
    offered = set(re.findall(r"(?<![\w-])(--[a-z][\w.-]*)", capsys.readouterr().out))
    own = {"--help", "--preset", "--config", "--dry-run", "--no-dry-run"}
    offered -= own
    # A switch is offered in both directions; the reference names it once.
    offered -= {o for o in offered if re.sub(r"(--|\.)no-", r"\1", o) in offered - {o}}
    assert offered == set(_reference().options(kind))


def test_the_example_constitutions_are_constitutions(reader):
    titles = [block.title for block in blocks(ROOT / "docs" / "constitution.md", "markdown")]
    assert titles == ["my_constitution.md", "my_guidelines.md"]
    sections = load_constitutional_config(reader / "my_constitution.md")
    (plainness,) = sections.principles
    assert (len(plainness.criteria), len(plainness.applications), len(plainness.few_shot)) == (
        2,
        2,
        1,
    )
    honesty, patience = load_constitutional_config(reader / "my_guidelines.md").principles
    page = " ".join((ROOT / "docs" / "constitution.md").read_text("utf-8").split())
    assert honesty.critique in page
    assert honesty.revision in page
    assert honesty.criteria[0] in page
    assert patience.criteria


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_examples_compile_and_import_what_exists(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in PACKAGES:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names)


def test_the_navigation_has_every_page():
    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [page for value in values for page in pages(value)]

    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(pages(config["nav"])) == sorted(p.name for p in ROOT.glob("docs/*.md"))


def test_the_site_loads_nothing_from_elsewhere(tmp_path, monkeypatch):
    build = pytest.importorskip("mkdocs.commands.build")
    config = importlib.import_module("mkdocs.config")
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    built = config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"))
    built.strict = True
    build.build(built)
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list(ROOT.glob("docs/*.md")))
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|link)[^>]*(?:src|href)=\"?(https?:[^\"\s>]+)", page.read_text("utf-8")
        )
        assert not loaded
    assert not list((tmp_path / "site").rglob("generate_reference.py"))


def _kinds(of: type) -> set[str]:
    return {of.__name__}.union(*(_kinds(each) for each in of.__subclasses__()))


def test_the_troubleshooting_page_knows_every_kind_of_error():
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    told = set(re.findall(r"`(\w+Error)`", text))
    # Only the tree itself: modules have private kinds of their own.
    kinds = {name for name in _kinds(errors.CCAIError) if hasattr(errors, name)}
    assert told == kinds


def test_the_troubleshooting_page_quotes_messages_that_there_are():
    constants = (
        " ".join(node.value.split())
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    said = "\n".join(constants)
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    rows = re.findall(r"^\| (?!vLLM)(.+?) \|", page, re.MULTILINE)
    quoted = {text for row in rows for text in re.findall(r"`([^`]+)`", row) if " " in text}
    assert len(quoted) > 40
    assert not {message for message in quoted if not _is_said(message, said)}


def _is_said(message: str, said: str) -> bool:
    """Whether three words of a message in a row, or all of a shorter piece, are in the code."""
    # Dots, numbers and quoted words stand for what differs from case to case.
    for piece in re.split(r"\.\.\.|\S*\d\S*|'[^']*'", message):
        words = piece.strip(" .:;(,)").split()
        runs = [" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))]
        if any(len(run) > 6 and run in said for run in runs):
            return True
    return False


def test_docker_is_no_python_package():
    # MLflow imports the `docker` of its own dependencies.
    assert not list((ROOT / "docker").rglob("*.py"))
    assert (ROOT / "docker" / "Dockerfile").is_file()


def test_the_makefile_says_what_it_does():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    described = set(re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE))
    assert targets == described
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)
    }
    assert {"poc", "test", "setup"} <= named <= targets
    for flow, arguments in _commands(text):
        parse(_settings(flow), f"python -m flows.{flow}", "", [*arguments, "--dry-run"])


def test_the_versions_of_the_project_agree():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "([^"]+)"', project, re.MULTILINE)[1]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == version
    assert version in (ROOT / "CHANGELOG.md").read_text("utf-8")
