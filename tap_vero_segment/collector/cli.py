"""The command line of ``vero-collector``."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import click
from click.core import ParameterSource
from dotenv import load_dotenv

from tap_vero_segment import times
from tap_vero_segment.collector import logs, settings
from tap_vero_segment.errors import UserError, check_pasted
from tap_vero_segment.stores.base import StoreError

logger = logging.getLogger("vero-collector")

ENV_FILE = Path(".env")

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Commands(click.Group):
    """Tells the user's errors in one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except MemoryError:
            click.echo("vero-collector: there is not enough memory", err=True)
            sys.exit(1)
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                click.echo("vero-collector: too many open files: raise ulimit -n", err=True)
                sys.exit(1)
            if not _is_of_printing(error):
                raise
            click.echo(f"vero-collector: standard output: {error.strerror}", err=True)
            # Python tries once more when it ends, and would tell it in its own words.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (UserError, StoreError) as error:
            click.echo(f"vero-collector: {error}", err=True)
            ctx.exit(1)


def _is_of_printing(error: OSError) -> bool:
    """Whether it came up where something was printed: to a full disk, say."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is click.echo.__code__


def _check_pasted(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    del context
    if value is not None:
        check_pasted(parameter.opts[0], value)
    return value


def _store_option(default: str = settings.DEFAULT_STORE, **attributes: Any) -> _Decorator:
    return click.option(
        "--store",
        default=default,
        show_default=True,
        metavar="URL",
        callback=_check_pasted,
        help="Where the events are kept.",
        **attributes,
    )


class _Seconds(click.FloatRange):
    """A time that comes to an end."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is no finite number", param, ctx)
        return seconds


class _Words(click.types.StringParamType):
    """Text; in an environment variable, commas or spaces separate several."""

    name = "CIDR"

    def split_envvar_value(self, rv: str) -> list[str]:
        return rv.replace(",", " ").split()


def _networks_option(option: str, field: str, text: str) -> _Decorator:
    name = option.removeprefix("--").replace("-", "_")
    return click.option(
        option,
        field,
        multiple=True,
        type=_Words(),
        callback=lambda _context, _parameter, values: settings.networks(values, name),
        envvar=settings.variable(name),
        show_envvar=True,
        help=text,
    )


def _warn_of_password(url: str, option: str, variable: str) -> None:
    if settings.has_password(url):
        logger.warning(
            "%s holds a password, which every user of this machine can see among the processes: "
            "set %s instead",
            option,
            variable,
        )


def _warn_of_misspelt(environment: Iterable[str]) -> None:
    """Name variables that nothing reads: what one was to forbid would stay allowed."""
    options = {
        parameter.envvar
        for command in main.commands.values()
        for parameter in command.params
        if isinstance(parameter.envvar, str)
    }
    known = options | settings.secret_variables()
    for name, nearest in settings.misspelt(environment, known).items():
        hint = f": is it {nearest}?" if nearest else ""
        logger.warning("%s is set, and no setting of that name is known%s", name, hint)


def _check_time(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    del context, parameter
    try:
        return None if value is None else times.canonical(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tap-vero-segment")
@click.pass_context
def main(context: click.Context) -> None:
    """Catch what Vero pushes, and keep it until a tap has read it."""
    context.obj = settings.Environment(ENV_FILE, os.environ)
    with settings.reading(ENV_FILE):
        load_dotenv(ENV_FILE)
    logs.configure()
    if context.invoked_subcommand != serve.name:  # which chooses the log's format first
        context.obj.warn_if_others_can_read()


@main.command()
@click.option(
    "--url",
    default="https://YOUR-HOST",
    show_default=True,
    help="Where Vero will reach the collector; only for the printed URL.",
)
def init(url: str) -> None:
    """Write .env with fresh secrets, and print the URL to paste into Vero."""
    from tap_vero_segment.collector.commands.init import check_url, webhook_path, write_env  # noqa: PLC0415

    check_url(url)
    written = write_env(ENV_FILE)
    path = webhook_path(ENV_FILE)
    if written:
        click.echo("Wrote .env with fresh secrets.")
    else:
        click.echo(".env is there already: nothing was changed.")
    click.echo("The URL to paste into Vero:")
    click.echo(f"  {url.rstrip('/')}{path}")


@main.command()
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option(
    "--host",
    default=settings.DEFAULT_HOST,
    show_default=True,
    envvar=settings.variable("host"),
    show_envvar=True,
    callback=_check_pasted,
    help="The address to listen on.",
)
@click.option(
    "--port",
    default=settings.DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    envvar=settings.variable("port"),
    show_envvar=True,
    help="The port to listen on; 0 takes a free one.",
)
@click.option(
    "--segment-legacy-batches",
    "legacy_batches",
    is_flag=True,
    envvar=settings.variable("segment_legacy_batches"),
    show_envvar=True,
    help=(
        "Take batches from Segment's webhooks whose signature covers the first call only. "
        "Anyone who sees one of them can add calls behind the first."
    ),
)
@click.option(
    "--segment-deletes",
    "segment_deletes",
    is_flag=True,
    envvar=settings.variable("segment_deletes"),
    show_envvar=True,
    help="Erase the user of each delete notice that Segment's webhooks bring; else it is ignored.",
)
@click.option(
    "--log-format",
    type=click.Choice([form.value for form in logs.LogFormat]),
    default=logs.LogFormat.TEXT.value,
    show_default=True,
    envvar=settings.variable("log_format"),
    show_envvar=True,
    help="Lines of the log as text, or as JSON objects for machines.",
)
@_networks_option(
    "--allow-from",
    "allow_from",
    "Serve only these addresses, except on /health and /ready; repeatable. Default: all.",
)
@_networks_option(
    "--trust-proxy",
    "trusted_proxies",
    "Trust X-Forwarded-For and X-Forwarded-Proto from these addresses; repeatable.",
)
@click.option(
    "--max-pending",
    default=settings.DEFAULT_MAX_PENDING,
    show_default=True,
    type=click.IntRange(min=1),
    envvar=settings.variable("max_pending"),
    show_envvar=True,
    help="Requests that may wait for their commit; the next one gets 503.",
)
@click.option(
    "--max-connections",
    default=settings.DEFAULT_MAX_CONNECTIONS,
    show_default=True,
    type=click.IntRange(min=1),
    envvar=settings.variable("max_connections"),
    show_envvar=True,
    help="Connections that are served; the next one gets 503.",
)
@click.option(
    "--client-timeout",
    "client_seconds",
    default=settings.DEFAULT_CLIENT_SECONDS,
    show_default=True,
    type=_Seconds(min=0, min_open=True),
    metavar="SECONDS",
    envvar=settings.variable("client_timeout"),
    show_envvar=True,
    help="How long a request may take to arrive, and a response to be read.",
)
@click.pass_context
def serve(context: click.Context, /, *, log_format: str, **told: Any) -> None:
    """Receive webhooks and serve what was received, until SIGTERM or SIGINT.

    The secrets come from the environment or from .env in the working folder, and each
    enables one endpoint: VERO_COLLECTOR_WEBHOOK_TOKEN for POST /vero/TOKEN,
    VERO_COLLECTOR_WRITE_KEY for POST /v1/track and /v1/batch,
    VERO_COLLECTOR_SEGMENT_SECRET for POST /segment, VERO_COLLECTOR_READ_TOKEN for
    GET /v1/events and for the live page, which is at /. Without its secret, an
    endpoint returns 404. The same name with _PREVIOUS is a secret that is still valid beside it.
    SIGHUP reads .env again.
    """
    from tap_vero_segment.collector.serve import serve as run  # noqa: PLC0415

    logs.configure(logs.LogFormat(log_format))
    given = context.get_parameter_source("store")
    if given is ParameterSource.COMMANDLINE:
        _warn_of_password(told["store"], "--store", settings.variable("store"))
    _warn_of_misspelt(os.environ)
    context.obj.warn_if_others_can_read()

    def reload() -> settings.Secrets:
        environment = context.obj.read()
        context.obj.warn_if_others_can_read()
        _warn_of_misspelt(environment)
        return settings.Secrets.from_environment(environment)

    run(settings.Settings(**told), settings.Secrets.from_environment(), reload)


@main.command()
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def status(store: str, *, as_json: bool) -> None:
    """Print what the store holds: events per collection, first and last loaded_at."""
    from tap_vero_segment.collector.commands.status import status as describe  # noqa: PLC0415

    click.echo(describe(store, as_json=as_json))


@main.command()
@_store_option(default="sqlite:///.demo/vero-events.db")
def sample(store: str) -> None:
    """Try it without Vero: post a small campaign and every documented payload to a collector.

    The collector is a real one, started for this and stopped afterwards; the events are of the
    present time. The default store is apart from a real collector's.
    """
    from tap_vero_segment.collector.commands.sample import sample as run  # noqa: PLC0415

    click.echo(run(store))


@main.command()
@click.option(
    "--duckdb",
    "file",
    type=click.Path(path_type=Path),
    help="The DuckDB file that the tables were loaded into.",
)
@click.option(
    "--postgres",
    "url",
    metavar="URL",
    envvar=settings.variable("report_postgres"),
    show_envvar=True,
    callback=_check_pasted,
    help="The PostgreSQL database that the tables were loaded into.",
)
@click.option("--schema", default="vero", show_default=True, help="The schema of the tables.")
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    help="Write the figures to this file, too; - prints them, and nothing else.",
)
@click.option(
    "--html",
    "html_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write them as a page with charts to this file, too.",
)
@click.pass_context
def report(context: click.Context, /, *, file: Path | None, url: str | None, **told: Any) -> None:
    """Print the rows of each loaded table and the campaigns' funnel, by week, too.

    A recipient (user_id, or else anonymous_id, or else the address) counts once for each step.
    Rates are of unique recipients: delivered and bounced of those sent to, the others of those
    delivered to. Weeks begin on Monday, in UTC.
    """
    from tap_vero_segment.collector.commands.report import report as run  # noqa: PLC0415

    typed = context.get_parameter_source("url") is ParameterSource.COMMANDLINE
    if file is not None and url is not None and not typed:
        url = None  # the environment's is the default, no second wish
    if (file is None) == (url is None):
        msg = "say where the tables are: --duckdb FILE or --postgres URL, one of them"
        raise click.UsageError(msg)
    if url is not None and typed:
        _warn_of_password(url, "--postgres", settings.variable("report_postgres"))
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    click.echo(run(file, url, coloured=coloured, **told), nl=False)


@main.command()
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option(
    "--to",
    required=True,
    metavar="URL",
    callback=_check_pasted,
    help="The archive: file:///…, s3://…, gs://… or az://…, with the provider's usual environment.",
)
@click.option(
    "--before",
    metavar="DATE",
    callback=_check_time,
    help="Only events that were received earlier; no offset means UTC.",
)
def export(store: str, to: str, before: str | None) -> None:
    """Write what the store holds as an archive in Segment's layout.

    The tap reads it as it reads Segment's own. A second export goes on where the first one ended.
    """
    from tap_vero_segment.collector.commands.export import export as run  # noqa: PLC0415

    click.echo(run(store, to, before))


@main.command()
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option(
    "--before",
    required=True,
    metavar="DATE",
    callback=_check_time,
    help="Only events that were received earlier; no offset means UTC.",
)
@click.option("--force", is_flag=True, help="Delete what was not exported, too.")
def prune(store: str, before: str, *, force: bool) -> None:
    """Delete old events, which have been exported.

    Refuses, and deletes nothing, where an event before DATE is in no archive that `export` has
    written. Dead letters stay. The file of an SQLite store does not shrink: new events take the
    room.
    """
    from tap_vero_segment.collector.commands.prune import prune as run  # noqa: PLC0415

    click.echo(run(store, before, force=force))


@main.command()
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option(
    "--email",
    "emails",
    multiple=True,
    metavar="ADDRESS",
    help="The address, or number, of a person; - reads them from standard input. Repeatable.",
)
@click.option(
    "--user-id", "ids", multiple=True, metavar="ID", help="Vero's id of a user. Repeatable."
)
@click.option(
    "--emails-from",
    "file",
    type=click.File(encoding="utf-8-sig"),
    help="Read addresses from this file, one a line.",
)
@click.option(
    "--archive",
    "archives",
    multiple=True,
    metavar="URL",
    help="An archive to erase them from, beside those that `export` has written. Repeatable.",
)
@click.option(
    "--suppress/--no-suppress",
    default=None,
    help="Drop what comes later of them as well; or stop to do so.",
)
@click.option("--dry-run", is_flag=True, help="Only print what would be deleted.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def erase(  # noqa: PLR0913  # as many as there are options
    *,
    store: str,
    emails: tuple[str, ...],
    ids: tuple[str, ...],
    file: IO[str] | None,
    archives: tuple[str, ...],
    suppress: bool | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase people: their events, bodies and dead letters, here and in exported archives.

    A keyed hash is kept, so that imports and replays do not bring them back. Webhooks that come
    later do, unless --suppress. It runs beside collectors and taps; broken off, run it again.
    """
    from tap_vero_segment.collector.commands.erase import Figures, check_people  # noqa: PLC0415
    from tap_vero_segment.collector.commands.erase import erase as run  # noqa: PLC0415
    from tap_vero_segment.recipients import address, user_id  # noqa: PLC0415

    given = [one for one in emails if one != "-"]
    piped = "-" in emails
    given += _addresses(sys.stdin) if piped else []
    given += _addresses(file) if file else []
    people = [*map(address, given), *map(user_id, ids)]
    check_people(people)
    asks = not (yes or dry_run)
    if asks and (piped or not sys.stdin.isatty()):
        msg = "nobody can be asked, as standard input is not a terminal: add --yes, or --dry-run"
        raise UserError(msg)

    def confirm(found: Figures) -> None:
        if asks:
            for line in found.lines("found"):
                click.echo(line, err=as_json)
            click.confirm("Delete all of this for good?", abort=True, err=as_json)

    done = run(store, people, archives, suppress=suppress, dry_run=dry_run, confirm=confirm)
    if as_json:
        click.echo(json.dumps(done.as_json()))
    else:
        for line in done.lines("found" if dry_run else "deleted"):
            click.echo(line)
    if done.problems:
        raise UserError("not finished: " + "; ".join(done.problems))


def _addresses(file: IO[str]) -> list[str]:
    return [line.strip() for line in file if line.strip()]


@main.command("repair-clock")
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option("--dry-run", is_flag=True, help="Only print how many events are in the future.")
@click.option("--yes", is_flag=True, help="Do not ask whether the clock is right now.")
def repair_clock(store: str, *, dry_run: bool, yes: bool) -> None:
    """Take events back that were loaded in the future, while the clock was wrong.

    They keep their order and all that they have, but get a loaded_at that ends now, so that new
    events are dated rightly again. For an SQLite store, stop the collector before, and whatever
    else has the store open; with PostgreSQL, collectors can go on. A tap that has read the events
    in the future notices, and reads everything again. Broken off, the next one goes on.
    """
    from tap_vero_segment.collector.commands.repair_clock import repair_clock as run  # noqa: PLC0415

    def confirm(question: str) -> None:
        if not yes:
            click.confirm(question, abort=True)

    run(store, dry_run=dry_run, confirm=confirm, say=click.echo)


@main.group("dead-letters")
def dead_letters() -> None:
    """See what was received and could not be mapped, read it again after an upgrade, delete it."""


_NUMBER = click.IntRange(1, 2**63 - 1)


@dead_letters.command("list")
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
def list_dead_letters(store: str, *, as_json: bool) -> None:
    """Print each dead letter's number, time, input, size and reason."""
    from tap_vero_segment.collector.commands.dead_letters import list_dead_letters as lines_of  # noqa: PLC0415

    for line in lines_of(store, as_json=as_json):
        click.echo(line)


@dead_letters.command("show")
@click.argument("number", type=_NUMBER)
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option("--raw", is_flag=True, help="Print the body alone, exactly as it came.")
def show_dead_letter(number: int, store: str, *, raw: bool) -> None:
    """Print a dead letter, its body included."""
    from tap_vero_segment.collector.commands.dead_letters import body_of  # noqa: PLC0415
    from tap_vero_segment.collector.commands.dead_letters import show_dead_letter as describe  # noqa: PLC0415

    if raw:
        click.echo(body_of(store, number), nl=False)
    else:
        secrets = [os.environ.get(name) for name in sorted(settings.secret_variables())]
        click.echo(describe(store, number, filter(None, secrets)))


@dead_letters.command("replay")
@click.argument("numbers", nargs=-1, type=_NUMBER, metavar="[NUMBER]...")
@_store_option(envvar=settings.variable("store"), show_envvar=True)
def replay_dead_letters(numbers: tuple[int, ...], store: str) -> None:
    """Read dead letters again, all of them or some, and store what is an event now.

    Mended events come out of the tap as new ones. What still cannot be mapped stays.
    """
    from tap_vero_segment.collector.commands.replay import replay as run  # noqa: PLC0415

    click.echo(run(store, numbers))


@dead_letters.command("delete")
@click.argument("numbers", nargs=-1, required=True, type=_NUMBER, metavar="NUMBER...")
@_store_option(envvar=settings.variable("store"), show_envvar=True)
def delete_dead_letters(numbers: tuple[int, ...], store: str) -> None:
    """Delete dead letters for good: all that are named, or none where a number has none.

    A body that comes again is a dead letter again, under another number.
    """
    from tap_vero_segment.collector.commands.dead_letters import delete_dead_letters as run  # noqa: PLC0415

    click.echo(run(store, numbers))
