"""Where the options of `netpoll serve` come from: the command line, the environment and a file.

What stands on the command line counts first, then NETPOLL_NAME of the environment, then the file of
--config, or else ./pyproject.toml, then the default.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netpoll._native.server.networks import Networks
from netpoll._serve.arguments import make_parser, octal

__all__ = ["parse", "read_env_file"]

ENV_PREFIX = "NETPOLL_"
# The number of workers, as uvicorn, gunicorn and those who host them have it.
ENV_WORKERS = "WEB_CONCURRENCY"
PROJECT_FILE = "pyproject.toml"
# Where to listen: who says one of the first two, or of the others, says it instead of all that
# count less.
ADDRESS_NAMES = ("host", "port")
PLACE_NAMES = ("bind", "uds", "fd")
SWITCH_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def parse(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> argparse.Namespace:
    """Ends the process with a sentence and status 2 for what makes no sense."""
    parser = make_parser()
    early = _look_ahead(argv)
    config = early.get("config") or environ.get(ENV_PREFIX + "CONFIG")
    actions = {}
    for action in parser._actions:
        for name in [action.dest, *action.option_strings]:
            actions[name.lstrip("-").replace("-", "_")] = action
    for name in ("help", "h", "c", "config", "check_config"):
        actions.pop(name)
    try:
        defaults = _from_file(config, actions)
        said = _from_environment(environ, actions)
    except (OSError, ValueError) as exc:
        parser.error(str(exc))
    defaults = _without_places(defaults, said) | said
    defaults = _without_places(defaults, early)
    # To a list that is a default the command line would add.
    lists = {name: value for name, value in defaults.items() if isinstance(value, list)}
    parser.set_defaults(**{**defaults, **dict.fromkeys(lists)})
    options = parser.parse_all(argv)
    for name, value in lists.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for problem in _problems(options):
        parser.error(problem)
    return options


def _look_ahead(argv: Sequence[str]) -> dict[str, Any]:
    """What the command line says of the file and of where to listen. What is wrong with it will be
    told by the whole parser."""
    early = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS
    )
    names = (("--config", "-c"), ("--host",), ("--port",), ("--bind", "-b"), ("--uds", "--unix"))
    for each in (*names, ("--fd",)):
        early.add_argument(*each)
    try:
        return vars(early.parse_known_args(argv)[0])
    except argparse.ArgumentError:
        return {}


def _without_places(found: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """found: without what is said in another way by something that counts more."""
    dropped: tuple[str, ...] = ()
    if any(name in said for name in PLACE_NAMES):
        dropped = ADDRESS_NAMES + PLACE_NAMES
    elif any(name in said for name in ADDRESS_NAMES):
        dropped = PLACE_NAMES
    return {name: value for name, value in found.items() if name not in dropped}


def _from_file(path: str | None, actions: Mapping[str, argparse.Action]) -> dict[str, Any]:
    if path is None:
        if not os.path.exists(PROJECT_FILE):
            return {}
        path, table = PROJECT_FILE, _table_of_project(PROJECT_FILE)
    else:
        table = _table_of(path)
    found = {}
    for key, value in table.items():
        action = actions.get(key.replace("-", "_"))
        if action is None:
            raise ValueError(f"{path}: there is no option {key!r}")
        found[action.dest] = _said(action, key.replace("-", "_"), value, f"{path}: {key}")
    return found


def _table_of(path: str) -> dict[str, Any]:
    try:
        table = tomllib.loads(Path(path).read_text())
    except ValueError as exc:
        raise ValueError(f"{path} is not TOML: {exc}") from None
    if "tool" in table:
        return _of_tool(table)
    found = table.get("serve", table)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: serve is a table with options")
    return found


def _table_of_project(path: str) -> dict[str, Any]:
    """Of a file that nobody has named: what cannot be read is not this command's affair."""
    try:
        return _of_tool(tomllib.loads(Path(path).read_text()))
    except (OSError, ValueError):
        return {}


def _of_tool(table: dict[str, Any]) -> dict[str, Any]:
    for name in ("tool", "netpoll", "serve"):
        table = table.get(name, {})
        if not isinstance(table, dict):
            return {}
    return table


def _from_environment(
    environ: Mapping[str, str], actions: Mapping[str, argparse.Action]
) -> dict[str, Any]:
    found = {}
    if ENV_WORKERS in environ:
        found["workers"] = _converted(actions["workers"], environ[ENV_WORKERS], ENV_WORKERS)
    for key, action in actions.items():
        name = ENV_PREFIX + key.upper()
        if len(key) > 1 and name in environ:
            found[action.dest] = _said(action, key, environ[name], name)
    return found


def _said(action: argparse.Action, key: str, value: Any, where: str) -> Any:
    """The value of an option that is called so: no_reload is the contrary of reload."""
    converted = _converted(action, value, where)
    is_contrary = isinstance(action.default, bool) and key.startswith("no_")
    return not converted if is_contrary else converted


def _converted(action: argparse.Action, value: Any, where: str) -> Any:
    """What the command line would have made of it."""
    if isinstance(action.default, bool):
        if isinstance(value, str):
            value = SWITCH_WORDS.get(value.lower())
        if not isinstance(value, bool):
            raise ValueError(f"{where} is true or false")
        return value
    convert = action.type if callable(action.type) else str
    if convert is octal and isinstance(value, int):
        raise ValueError(f'{where} is a string, as "027": a number would be read as a decimal one')
    try:
        if isinstance(action, argparse._AppendAction):
            each = value.split(",") if isinstance(value, str) else value
            if not isinstance(each, list):
                raise argparse.ArgumentTypeError("a list of strings")
            return [convert(str(one)) for one in each]
        return convert(str(value))
    except argparse.ArgumentTypeError as exc:
        raise ValueError(f"{where}: {exc}") from None


def _problems(options: argparse.Namespace) -> list[str]:
    found = []
    if not options.app or not all(options.app.partition(":")):
        found.append("name an application as MODULE:APP: the variable APP of MODULE.py")
    ways = (options.bind, options.uds, options.fd)
    if sum(way is not None for way in ways) > 1:
        found.append("say where to listen in one way: --bind, --uds or --fd")
    if options.ssl_keyfile and not options.ssl_certfile:
        found.append("--ssl-keyfile needs --ssl-certfile")
    if options.ssl_ca_certs and not options.ssl_certfile:
        found.append("--ssl-ca-certs needs --ssl-certfile")
    if options.interface == "stream" and options.proxy_headers:
        found.append("--proxy-headers is for HTTP: a stream has none")
    for name in ("forwarded_allow_ips", "proxy_allow_from"):
        try:
            Networks(getattr(options, name))
        except ValueError as exc:
            found.append(f"--{name.replace('_', '-')}: {exc}")
    return found


def read_env_file(path: str) -> dict[str, str]:
    """NAME=VALUE lines; '#' begins a comment line, quotes around a value are left out."""
    found = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{path}:{number}: not NAME=VALUE")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name.strip()] = value
    return found
