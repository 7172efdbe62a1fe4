"""The steps of a Dockerfile, carried out where nothing of this checkout is installed: the root of this machine under an overlay.

What a stage writes stays in memory and is gone with the process; this machine's system stands for the image that a stage is FROM.
Needs root, for mount namespaces.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

BASE_PATH = f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@attrs.frozen
class Instruction:
    """One of a Dockerfile: its word in upper case, its flags ("--from=build") and the rest."""

    word: str
    flags: tuple[str, ...]
    rest: str


@attrs.define
class Image:
    """What the last stage leaves. environment: as ENV has set it; entry: ENTRYPOINT with CMD."""

    script: list[str]
    environment: dict[str, str] = attrs.field(factory=lambda: {"PATH": BASE_PATH})
    user: str = "0:0"
    folder: str = "/"
    entry: list[str] = attrs.field(factory=list)
    command: list[str] = attrs.field(factory=list)
    health: list[str] = attrs.field(factory=list)
    volumes: list[str] = attrs.field(factory=list)


def instructions(text: str) -> Iterator[Instruction]:
    """Those of a file, comments and line ends joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n\s*", " ", lines).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            words = rest.split()
            flags = tuple(each for each in words if each.startswith("--")) if word.upper() in ("COPY", "HEALTHCHECK") else ()
            yield Instruction(word.upper(), flags, " ".join(words[len(flags) :]) if flags else rest.strip())


def can_build() -> bool:
    """Whether a root can be made here."""
    return os.getuid() == 0 and subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0


def image_of(dockerfile: Path, context: Path, work: Path) -> Image:
    """How to build it. work: an empty folder, where a script of `run` mounts what it needs."""
    image = Image(script=[f"mount -t tmpfs none {work}"])
    roots: dict[str, str] = {}
    root = ""
    for each in instructions(dockerfile.read_text()):
        match each.word:
            case "FROM":
                root = f"{work}/{len(roots)}/root"
                roots[each.rest.rpartition(" ")[2]] = root
                image = Image(script=[*image.script, *_new_root(root)])
            case "COPY":
                *sources, target = each.rest.split()
                place = next(
                    (roots[flag.removeprefix("--from=")] for flag in each.flags if flag.startswith("--from=")), str(context)
                )
                target = os.path.join(image.folder, target)
                for source in sources:
                    inner = target if source.startswith("/") or (context / source).is_dir() else f"{target}/{source}"
                    image.script.append(f"cp -a {place}/{source} {root}{inner}")
            case "RUN":
                image.script.append(inside(image, root, ["sh", "-ec", each.rest], os.environ))
            case "ENV":
                for name, value in (pair.split("=", 1) for pair in shlex.split(each.rest)):
                    image.environment[name] = value.replace("$PATH", image.environment["PATH"])
            case "USER":
                image.user = each.rest
            case "WORKDIR":
                image.folder = each.rest
                image.script.append(f"mkdir -p {root}{each.rest}")
            case "HEALTHCHECK":
                image.health = json.loads(each.rest.removeprefix("CMD").strip())
            case "ENTRYPOINT":
                image.entry = json.loads(each.rest)
            case "CMD":
                image.command = json.loads(each.rest)
            case "VOLUME":
                image.volumes.append(each.rest)
            case "EXPOSE" | "STOPSIGNAL":
                pass
            case _:
                raise ValueError(f"{each.word} is not known here")
    image.script.append(f"root={root}")
    return image


def inside(image: Image, root: str, command: list[str], more: os._Environ[str] | dict[str, str] | None = None) -> str:
    """The line of a shell that runs a command in the image as its user. more: variables beside those of the image."""
    kept = {name: value for name, value in (more or {}).items() if name.startswith("PIP_") or name in ("HOME", "SSL_CERT_FILE")}
    variables = [f"{name}={value}" for name, value in {**kept, **image.environment}.items()]
    change = shlex.quote(f'cd {image.folder} && exec "$@"')
    return f"chroot --userspec={image.user} {root} env -i {shlex.join(variables)} sh -c {change} sh {shlex.join(command)}"


def _new_root(root: str) -> list[str]:
    above = root.removesuffix("/root")
    return [
        f"mkdir -p {above}/upper {above}/work {root}",
        f"mount -t overlay overlay -o lowerdir=/,upperdir={above}/upper,workdir={above}/work {root}",
        f"mount --rbind /dev {root}/dev",
        f"mount -t proc proc {root}/proc",
        # the interpreter of this machine may lie in somebody's home
        *(f"chmod o+x {root}{folder}" for folder in map(str, Path(sys.base_prefix).parents) if folder != "/"),
    ]
