"""What an automatic search is asked for, what it is called, whether its space file is there."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from search.space.writing import check_place
from trainable.errors import UserError

MINUTES = 20.0  # unless others are asked for
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class Request:
    """The words of one automatic search: its images, name, model and weights, where they are given, and ``path=value`` texts."""

    data: str
    name: str | None = None
    model: str | None = None
    weights: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def search_name(self) -> str:
        """The name given, else that of the images' folder or file, with `-` for what no name may have."""
        if self.name is not None:
            return self.name
        place = Path(self.data.partition("://")[2] or Path(self.data).resolve())
        return _NOT_IN_NAMES.sub("-", place.stem if place.suffix else place.name).strip("-._") or "images"

    @property
    def file(self) -> Path:
        """The space file, in the current folder."""
        return Path(f"{self.search_name}.yaml")

    def words(self) -> list[str]:
        """The words after `auto` but for the minutes, of which a search may be given more."""
        options = {"--name": self.name, "--model": self.model, "--weights": self.weights}
        given = [word for option, value in options.items() if value is not None for word in (option, value)]
        return [self.data, *given, *(word for text in self.overrides for word in ("--set", text))]

    def command(self) -> str:
        """What to type for it."""
        return f"python -m search auto {shlex.join(self.words())}"


def is_written(request: Request) -> bool:
    """Whether the space file of this very request is there. Raises UserError for another file of its name or a bad name."""
    file = request.file
    check_place(file, where=f"--name {request.search_name}")
    if not file.exists():
        return False
    if not file.is_file() or f"#   {request.command()}" not in file.read_text(errors="replace").splitlines():
        raise UserError(
            f"{file}: is there already and not of this command; --name gives this search another, "
            f"`python -m search run {shlex.quote(str(file))}` goes on with that one"
        )
    return True
