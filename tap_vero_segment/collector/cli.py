"""The command line of ``vero-collector``."""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

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


def _channel(context: click.Context, parameter: click.Parameter, value: str) -> str | None:
    """Return a channel as the report compares it; None: all of them."""
    del context, parameter
    name = value.strip().lower()
    if not name:
        msg = "it is blank: name a channel, or all"
        raise click.BadParameter(msg)
    return None if name == "all" else name


def _timezone(context: click.Context, parameter: click.Parameter, value: str) -> str:
    del context, parameter
    try:
        ZoneInfo(value)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        msg = "it is not a known time zone: use a name such as Europe/Berlin"
        raise click.BadParameter(msg) from error
    return value


def _moment(value: str | None, timezone: str, option: str) -> str | None:
    """Return a time as fixed-width UTC text; without an offset it is in a time zone."""
    if value is None:
        return None
    try:
        with suppress(ValueError):
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                value = moment.replace(tzinfo=ZoneInfo(timezone)).isoformat()
        return times.canonical(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


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
    "--channel",
    default="email",
    show_default=True,
    metavar="NAME",
    callback=_channel,
    help="Count only this channel: email, push, sms or another; all counts every channel.",
)
@click.option(
    "--since",
    metavar="TIME",
    help="Count only events that happened at this time or later; no offset means --timezone.",
)
@click.option("--until", metavar="TIME", help="Count only events that happened before this time.")
@click.option(
    "--campaign",
    metavar="TEXT",
    help="Count only the campaign with this id, or campaigns with this text in their name.",
)
@click.option(
    "--by",
    type=click.Choice(["day", "week", "month"]),
    default="week",
    show_default=True,
    help="Give each campaign's figures by day, week or month.",
)
@click.option(
    "--timezone",
    default="UTC",
    show_default=True,
    metavar="NAME",
    callback=_timezone,
    help="The time zone in which a day begins, such as Europe/Berlin.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many campaigns to print, those with the most recipients; files have all.",
)
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
    delivered to. Weeks begin on Monday. Push and SMS messages are not counted unless --channel
    says so.
    """
    from tap_vero_segment.collector.commands.report import Layout  # noqa: PLC0415
    from tap_vero_segment.collector.commands.report import report as run  # noqa: PLC0415
    from tap_vero_segment.report.funnel import Question  # noqa: PLC0415

    typed = context.get_parameter_source("url") is ParameterSource.COMMANDLINE
    if file is not None and url is not None and not typed:
        url = None  # the environment's is the default, no second wish
    if (file is None) == (url is None):
        msg = "say where the tables are: --duckdb FILE or --postgres URL, one of them"
        raise click.UsageError(msg)
    if url is not None and typed:
        _warn_of_password(url, "--postgres", settings.variable("report_postgres"))
    told["since"] = _moment(told["since"], told["timezone"], "--since")
    told["until"] = _moment(told["until"], told["timezone"], "--until")
    question = Question(**{name: told.pop(name) for name in Question._fields})
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    layout = Layout(told.pop("top"), width, coloured)
    click.echo(run(file, url, question=question, layout=layout, **told), nl=False)


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
