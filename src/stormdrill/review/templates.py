"""The templates of a review: which ones hold, and how they are rendered (sandboxed, strict, escaping by default)."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from stormdrill.core import telling
from stormdrill.errors import Refused
from stormdrill.review.judgement import PROMPTS
from stormdrill.review.view import Review

STYLE = "chart.css"
FILES = ("review.md.j2", "review.html.j2", "review.css", STYLE, "review.js")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def shipped_templates() -> Path:
    """Where the shipped templates are: in the wheel's catalogue, else in the repository. Raises Refused."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "catalogue" / "reviews" / "templates", package.parents[1] / "reviews" / "templates"):
        if (folder / FILES[0]).is_file():
            return folder
    raise Refused("the review's templates are not installed; install stormdrill again")


def settle(run_dir: Path, given: Path | None) -> Path:
    """The run directory's templates, completed from what was given and from what ships."""
    folder = run_dir / "templates"
    wanted = [name for name in FILES if not (folder / name).is_file()]
    if wanted:
        folder.mkdir(exist_ok=True)
        shipped = shipped_templates()
        for name in wanted:
            own = given / name if given else None
            shutil.copyfile(own if own is not None and own.is_file() else shipped / name, folder / name)
    return folder


def markdown_of(folder: Path, view: Review) -> str:
    """Never more than one empty line in a row."""
    return re.sub(r"\n{3,}", "\n\n", _rendered(folder, _markdown_environment(folder), "review.md.j2", view))


def _environment(folder: Path) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=True,
    )  # fmt: skip


def _markdown_environment(folder: Path) -> ImmutableSandboxedEnvironment:
    """Escapes each value for Markdown, and for the HTML that Markdown may hold."""
    environment = _environment(folder)
    environment.finalize = lambda value: value if isinstance(value, Markup) else markdown_text(str(value))
    environment.filters["code"] = code_text
    environment.filters["spoken"] = telling.phase
    environment.filters["fenced"] = lambda text: Markup(" ".join(text.split()).replace("`", "'"))  # noqa: S704
    return environment


def markdown_text(text: str) -> Markup:
    """Text that Markdown shows as it is, on one line."""
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split()).replace("&", "&amp;"))
    return Markup(escaped.replace("\\<", "&lt;").replace("\\>", "&gt;"))  # noqa: S704  # escaped on the line above


def code_text(text: str) -> Markup:
    """A code span that holds the text as it is, pipes included."""
    one_line = " ".join(text.split())
    longest = max((len(run) for run in re.findall(r"`+", one_line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if one_line.startswith("`") or one_line.endswith("`") else ""
    return Markup(f"{fence}{pad}{one_line}{pad}{fence}".replace("|", "\\|"))  # noqa: S704  # a code span shows, not runs


def html_of(folder: Path, view: Review) -> str:
    """One page that fetches nothing; its policy allows exactly the style and the script that are in it."""
    environment = _environment(folder)
    style = Markup(_rendered(folder, environment, "review.css", view))  # noqa: S704  # a template's own text
    script = Markup(_rendered(folder, environment, "review.js", view))  # noqa: S704
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _rendered(folder, environment, "review.html.j2", view, style=style, script=script, policy=policy)


def _rendered(folder: Path, environment: ImmutableSandboxedEnvironment, name: str, view: Review, **more: str) -> str:
    try:
        return environment.get_template(name).render(review=view, prompts=PROMPTS, **more)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f"{getattr(error, 'name', None) or name}{f':{line}' if line else ''}"
        raise Refused(f"{folder}: {where}: {error}; mend the template or remove it to get the shipped one") from error


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
