"""The command line of ``vero-collector``."""

from __future__ import annotations

import errno
import json
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
from typing import IO, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
import msgspec
from click.core import ParameterSource
from dotenv import load_dotenv

from tap_vero_segment import times
from tap_vero_segment.collector import logs, settings
from tap_vero_segment.errors import UserError, check_pasted, importing
from tap_vero_segment.stores.base import StoreError

logger = logging.getLogger("vero-collector")

ENV_FILE = Path(".env")
MELTANO_FILE = Path("meltano.yml")

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


DOCS = "https://tap-vero-segment.readthedocs.io/en/latest"

EXAMPLES = {
    "main": ("index", ["demo", "init --url https://collector.example", "serve"]),
    "init": ("start/vero", ["init --url https://collector.example --meltano"]),
    "serve": ("collector/running", ["serve", "serve --port 8400 --log-format json"]),
    "status": ("collector/running", ["status", "status --json"]),
    "check": ("collector/monitoring", ["check --newest-within 24h --max-dead-letters 0"]),
    "events": (
        "collector/finding",
        [
            "events --recipient ann@example.com",
            "events --campaign Welcome --since 2026-11-01 --csv",
        ],
    ),
    "sample": ("start/demo", ["sample --fresh"]),
    "demo": ("start/demo", ["demo", "demo --port 8400"]),
    "report": (
        "reports/funnel",
        [
            "report --duckdb warehouse.duckdb",
            "report --duckdb warehouse.duckdb --html funnel.html",
        ],
    ),
    "export": (
        "collector/retention",
        [
            "export --to s3://my-bucket/vero",
            "export --to file:///srv/archive --before 2026-10-01",
        ],
    ),
    "forward": (
        "collector/forwarding",
        ["forward --to https://app.example/webhooks/vero --follow"],
    ),
    "erase": (
        "collector/erasure",
        ["erase --email ann@example.com --dry-run", "erase --emails-from people.txt --yes"],
    ),
    "import": ("collector/import", ["import --dry-run kept/", "import kept/ s3://my-bucket/old"]),
    "prune": ("collector/retention", ["prune --before 2026-10-01"]),
    "backup": ("operating/backup", ["backup copy.db"]),
    "restore": ("operating/backup", ["restore copy.db", "restore --replace copy.db"]),
    "repair-clock": ("collector/clock", ["repair-clock --dry-run", "repair-clock"]),
    "dead-letters": ("collector/dead-letters", ["dead-letters list", "dead-letters replay"]),
    "list": ("collector/dead-letters", ["dead-letters list --by-reason"]),
    "show": ("collector/dead-letters", ["dead-letters show 7"]),
    "replay": ("collector/dead-letters", ["dead-letters replay", "dead-letters replay 7 9"]),
    "delete": ("collector/dead-letters", ["dead-letters delete 7 9"]),
}
"""What stands below the help of each command: the page that says more, and what to type."""


def _epilog(name: str) -> str:
    page, examples = EXAMPLES.get(name, ("collector/running", []))
    lines = ["Examples:", *(f"  vero-collector {each}" for each in examples)] if examples else []
    # \b keeps click from wrapping the lines of a paragraph.
    paragraphs = [lines, ["Documentation:", f"  {DOCS}/{page}.html"]]
    return "\n\n".join("\n".join(["\b", *each]) for each in paragraphs if each)


class _Group(click.Group):
    """Says what each command does without cutting it off, and where to read more."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        rows = [
            (name, command.get_short_help_str(limit=1_000))
            for name, command in sorted(self.commands.items())
            if not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        cmd.epilog = _epilog(name or cmd.name or "")
        super().add_command(cmd, name)


class _Commands(_Group):
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


def _warn_of_passwords(context: click.Context, parameter: str, option: str) -> None:
    """Warn of destinations that were typed with a password."""
    if context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE:
        for url in context.params[parameter]:
            _warn_of_password(url, option, settings.variable("forward"))


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


def _read_start(_context: click.Context, _parameter: click.Parameter, value: str) -> int | None:
    """Return where a new destination begins: microseconds since 1970; None: now."""
    if value in {"oldest", "now"}:
        return 0 if value == "oldest" else None
    try:
        return times.from_text(value)
    except ValueError as error:
        msg = f"oldest, now, or a date or time: {error}"
        raise click.BadParameter(msg) from error


def _forward_options(prefix: str) -> _Decorator:
    """Return the options that `serve` and `forward` share."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option(
                f"--{prefix}skip-refused",
                f"{prefix.replace('-', '_')}skip_refused",
                is_flag=True,
                envvar=settings.variable("forward_skip_refused"),
                show_envvar=True,
                help="Skip an event that a destination refuses with 400, 409, 413, 415 or 422.",
            ),
            click.option(
                f"--{prefix}from",
                f"{prefix.replace('-', '_')}from",
                default="oldest",
                show_default=True,
                metavar="oldest|now|DATE",
                envvar=settings.variable("forward_from"),
                show_envvar=True,
                callback=_read_start,
                help="Where a new destination begins; DATE is the time of storing, in UTC.",
            ),
        ):
            command = option(command)
        return command

    return add


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


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    del context, parameter
    try:
        return None if value is None else times.duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_epilog("main"),
)
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


def _check_url(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    del parameter
    if value is None:
        return None
    typed = context.get_parameter_source("url") is ParameterSource.COMMANDLINE
    settings.check_url(value, "--url" if typed else settings.variable("url"))
    return value.rstrip("/")


_url_option = click.option(
    "--url",
    metavar="URL",
    callback=_check_url,
    envvar=settings.variable("url"),
    show_envvar=True,
    help="The public URL where Vero reaches the collector, such as https://collector.example.",
)


@main.command()
@_url_option
@click.option(
    "--meltano", is_flag=True, help="Write a small meltano.yml, too, that loads into DuckDB."
)
@click.pass_context
def init(context: click.Context, url: str | None, *, meltano: bool) -> None:
    """Write .env with fresh secrets, and print the URL to paste into Vero.

    A secret that is there is never changed, and neither is a meltano.yml. --url is written to .env
    as well.
    """
    from tap_vero_segment.collector.commands import init as of  # noqa: PLC0415

    written = of.write_env(ENV_FILE, url)
    path = of.webhook_path(ENV_FILE)
    typed = context.get_parameter_source("url") is ParameterSource.COMMANDLINE
    if written:
        click.echo("Wrote .env with fresh secrets.")
    elif url and typed and of.set_url(ENV_FILE, url):
        click.echo(".env is there already: the URL was written to it, the secrets stay.")
    else:
        click.echo(".env is there already: nothing was changed.")
    if meltano and of.write_meltano(MELTANO_FILE):
        click.echo("Wrote meltano.yml.")
    elif meltano:
        click.echo("meltano.yml is there already: it was not changed.")
    if url and (warning := settings.url_warning(url)):
        logger.warning("%s", warning)
    click.echo("The URL to paste into Vero:")
    click.echo(f"  {url or 'https://YOUR-HOST'}{path}")
    for line in of.next_steps(meltano=MELTANO_FILE.exists()):
        click.echo(line)


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
@_url_option
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
@click.option(
    "--forward",
    multiple=True,
    type=_Words(),
    metavar="URL",
    envvar=settings.variable("forward"),
    show_envvar=True,
    help="Post a copy of what Vero posts to this URL; repeatable. See vero-collector forward.",
)
@_forward_options("forward-")
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
    problem = "this needs a web server: pip install 'tap-vero-segment[collector]'"
    with importing(UserError(problem)):
        from tap_vero_segment.collector.serve import serve as run  # noqa: PLC0415

    logs.configure(logs.LogFormat(log_format))
    given = context.get_parameter_source("store")
    if given is ParameterSource.COMMANDLINE:
        _warn_of_password(told["store"], "--store", settings.variable("store"))
    _warn_of_passwords(context, "forward", "--forward")
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
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option(
    "--newest-within",
    metavar="DURATION",
    callback=_duration,
    help="The newest event must not be older: 24h, 90m, 1d12h.",
)
@click.option(
    "--max-lag",
    metavar="DURATION",
    callback=_duration,
    help="Events must arrive this soon after they happened (the median of the newest 20).",
)
@click.option(
    "--max-dead-letters", type=click.IntRange(min=0), help="There must not be more dead letters."
)
@click.option(
    "--integrity",
    is_flag=True,
    help="Read all events and dead letters, too. Takes minutes where the store is large.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.option(
    "--alert-url",
    metavar="URL",
    envvar=settings.variable("alert_url"),
    show_envvar=True,
    help="Post what failed to this URL, as JSON. Better in the variable: it is often a secret.",
)
@click.pass_context
def check(
    context: click.Context, /, *, store: str, as_json: bool, alert_url: str | None, **told: Any
) -> None:
    """Check that events arrive and the store is well: for cron and monitors.

    It always checks that the store can be read, that the clock is not behind the newest event, and
    that the disk is not nearly full. Each condition that fails is a line on standard output, and
    the exit status is 1. When all is well it prints nothing, except on a terminal.
    """
    from tap_vero_segment.collector.commands import check as of  # noqa: PLC0415

    if alert_url:
        of.check_alert_url(alert_url)
    checked = of.check(store, of.Conditions(**told))
    found = of.describe(store, checked)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        for line in found["failed"]:
            click.echo(line)
        if found["ok"] and sys.stdout.isatty():
            click.echo(f"All is well: {', '.join(each.name for each in checked)}.")
    if found["ok"]:
        return
    if alert_url and (problem := of.alert(alert_url, found)):
        click.echo(f"vero-collector: the alert could not be sent: {problem}", err=True)
    context.exit(1)


@main.command()
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option("--recipient", metavar="ADDRESS", help="The address or number it was sent to.")
@click.option("--user-id", metavar="ID", help="Vero's id of the user.")
@click.option("--email-id", metavar="ID", help="The message's id, which all of its events share.")
@click.option("--campaign", metavar="TEXT", help="The campaign's id, or its whole name.")
@click.option("--id", metavar="ID", help="The event's id.")
@click.option("--collection", metavar="NAME", help="Only this collection, such as email_bounced.")
@click.option("--since", metavar="TIME", help="Only what happened then or later; in UTC.")
@click.option("--until", metavar="TIME", help="Only what happened before; in UTC.")
@click.option("--before", metavar="TIME", help="Only what was loaded before: the next page.")
@click.option("--after", metavar="TIME", help="Only what was loaded just after.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="The most events to print.",
)
@click.option("--json", "as_json", is_flag=True, help="Print track calls as JSON, one a line.")
@click.option("--csv", "as_csv", is_flag=True, help="Print all columns as CSV.")
def events(store: str, *, limit: int, as_json: bool, as_csv: bool, **told: str | None) -> None:
    """Find events by recipient, user, message, campaign or id, and print the newest ones.

    An event has to fit all that is given; without anything, these are the newest events. Addresses
    and campaigns are compared without regard to capital letters. The last line says how many
    events these are, and how to get the next ones.
    """
    from tap_vero_segment.collector.commands import events as of  # noqa: PLC0415
    from tap_vero_segment.collector.searching import read_search, read_time  # noqa: PLC0415

    if as_json and as_csv:
        msg = "--json cannot be combined with --csv"
        raise click.UsageError(msg)
    fields = {name: value for name, value in told.items() if value is not None}
    before, after = (read_time(fields, name, "--") for name in ("before", "after"))
    if before is not None and after is not None:
        msg = "--before cannot be combined with --after"
        raise click.UsageError(msg)
    wish = of.Wish(read_search(fields, "--"), before, after, limit)
    if as_json or as_csv:
        printed = of.as_json(store, wish) if as_json else of.as_csv(store, wish)
    else:
        terminal = sys.stdout.isatty()
        printed = of.as_table(store, wish, shutil.get_terminal_size().columns if terminal else None)
    for line in printed.lines:
        click.echo(line)
    click.echo(printed.closing, err=as_json or as_csv)


@main.command()
@_store_option(default="sqlite:///.demo/vero-events.db")
@click.option(
    "--fresh", is_flag=True, help="Delete the default store and its warehouse in .demo before."
)
@click.pass_context
def sample(context: click.Context, store: str, *, fresh: bool) -> None:
    """Try it without Vero: post a small campaign and every documented payload to a collector.

    The collector is a real one, started for this and stopped afterwards; the events are of the
    present time. The default store is apart from a real collector's.
    """
    from tap_vero_segment.collector.commands import sample as of  # noqa: PLC0415

    if fresh:
        if context.get_parameter_source("store") is not ParameterSource.DEFAULT:
            msg = "--fresh deletes the default store only: leave out --store"
            raise click.UsageError(msg)
        of.delete_demo()
    click.echo(of.sample(store))


@main.command()
@click.option(
    "--port",
    default=0,
    show_default="a free one",
    type=click.IntRange(0, 65535),
    help="The port of the live page.",
)
def demo(port: int) -> None:
    """See everything without Vero: events, tables, a report, and the live page.

    It starts from an empty store each time, in the folder .demo. It posts a small campaign to a
    real collector, loads it into DuckDB and reports it, if the extras duckdb and report are
    installed. Then it serves the live page, where events keep arriving, until Ctrl+C.
    """
    from tap_vero_segment.collector.commands.demo import demo as run  # noqa: PLC0415

    run(port, click.echo)


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
@click.option(
    "--forget",
    metavar="URL",
    callback=_check_pasted,
    help="Forget an archive that is gone for good, and what it had; write nothing.",
)
def export(store: str, to: str | None, before: str | None, forget: str | None) -> None:
    """Write what the store holds as an archive in Segment's layout.

    The tap reads it as it reads Segment's own. A second export goes on where the first one ended.
    """
    from tap_vero_segment.collector.commands.export import export as run  # noqa: PLC0415
    from tap_vero_segment.collector.commands.export import forget as run_forget  # noqa: PLC0415

    if (to is None) == (forget is None):
        msg = "say where to: --to URL"
        raise click.UsageError(msg)
    if forget is not None:
        click.echo(run_forget(store, forget))
    else:
        click.echo(run(store, to or "", before))


@main.command("import")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["ndjson", "json", "csv", "parquet"]),
    help="The files' format. Default: their content tells.",
)
@click.option(
    "--body-field",
    metavar="NAME",
    help="The field that holds the payload. Default: the first of body, payload and data.",
)
@click.option(
    "--received-field",
    metavar="NAME",
    help=(
        "The field that holds the time of receipt. "
        "Default: the first of received_at, created_at and timestamp."
    ),
)
@click.option(
    "--received-at",
    metavar="DATE",
    callback=_check_time,
    help="When payloads were received that tell no time at all; no offset means UTC.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing, only count.")
@click.pass_context
def import_history(  # noqa: PLR0913  # an option each
    context: click.Context,
    /,
    *,
    sources: tuple[str, ...],
    store: str,
    file_format: str | None,
    body_field: str | None,
    received_field: str | None,
    received_at: str | None,
    dry_run: bool,
) -> None:
    """Bring in webhooks that were received elsewhere, from files.

    SOURCE is a file, a folder or a pattern: a path, or file://, s3://, gs:// or az:// with the
    provider's usual environment; or - for standard input. Files hold payloads, or records around
    them, as NDJSON, JSON, CSV or Parquet, gzipped or not: raw payloads, Stitch's and Snowplow's
    tables, tables of your own, and what `export` and GET /v1/events write. Events keep their time
    of receipt; what is stored already is left as it is. Killed and run again, the import goes on.
    """
    from tap_vero_segment.collector.commands.import_files import import_files as run  # noqa: PLC0415
    from tap_vero_segment.inputs.history import Wrapping  # noqa: PLC0415

    moment = None if received_at is None else times.from_text(received_at)
    wrapping = Wrapping(body_field, received_field, moment)
    report = run(store, sources, wrapping, file_format, dry_run=dry_run)
    click.echo(report.text)
    for problem in report.unread:
        click.echo(f"vero-collector: {problem}", err=True)
    if report.unread:
        context.exit(1)


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
@click.option(
    "--rewrite",
    is_flag=True,
    help="In PostgreSQL, leave no byte in the tables' files: VACUUM FULL, for which all wait.",
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
    rewrite: bool,
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

    def ask(found: Figures) -> None:
        for line in found.lines("found"):
            click.echo(line, err=as_json)
        for problem in found.problems:
            click.echo(f"vero-collector: {problem}", err=True)
        click.confirm("Delete all of this for good?", abort=True, err=as_json)

    confirm = ask if asks else None
    done = run(
        store,
        people,
        archives,
        suppress=suppress,
        rewrite=rewrite,
        dry_run=dry_run,
        confirm=confirm,
    )
    if as_json:
        click.echo(json.dumps(done.as_json()))
    else:
        for line in done.lines("found" if dry_run else "deleted"):
            click.echo(line)
    if done.problems:
        raise UserError("not finished: " + "; ".join(done.problems))


def _addresses(file: IO[str]) -> list[str]:
    return [line.strip() for line in file if line.strip()]


@main.command()
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option(
    "--to",
    "urls",
    multiple=True,
    type=_Words(),
    metavar="URL",
    envvar=settings.variable("forward"),
    show_envvar=True,
    help="Where to post: an http(s) URL; repeatable.",
)
@click.option("--follow", is_flag=True, help="Go on with what comes later, and never give up.")
@_forward_options("")
@click.option(
    "--forget",
    metavar="URL|NUMBER",
    help="Forget a destination and how far it has come; forward nothing.",
)
@click.pass_context
def forward(
    context: click.Context, /, *, store: str, urls: tuple[str, ...], forget: str | None, **told: Any
) -> None:
    """Post copies of what Vero posted to other servers: in order, each at least once.

    The bodies are those that Vero sent, byte for byte, of events and of dead letters. The store
    keeps how far each destination has come, so the next run goes on there. Headers of your own,
    such as Authorization, come from VERO_COLLECTOR_FORWARD_HEADERS. Without --follow it ends when
    all is posted, with status 1 where a destination fails for 30 seconds or refuses an event.
    """
    from tap_vero_segment.collector.commands.forward import forget as run_forget  # noqa: PLC0415
    from tap_vero_segment.collector.commands.forward import forward as run  # noqa: PLC0415
    from tap_vero_segment.collector.destinations import read_destinations  # noqa: PLC0415
    from tap_vero_segment.collector.forwarding import Manner  # noqa: PLC0415

    if forget is not None:
        click.echo(run_forget(store, forget))
        return
    if not urls:
        msg = "say where to: --to URL"
        raise click.UsageError(msg)
    _warn_of_passwords(context, "urls", "--to")
    headers = os.environ.get(settings.FORWARD_HEADERS, "")
    manner = Manner(told["from"], told["skip_refused"], told["follow"])
    run(store, read_destinations(urls, headers, "--to"), manner, click.echo)


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_store_option(envvar=settings.variable("store"), show_envvar=True)
def backup(file: Path, store: str) -> None:
    """Copy an SQLite store to FILE, which must not exist yet; safe beside a running collector.

    The copy is of one moment, in one file that only its owner can read. It is checked and synced
    before it gets its name.
    """
    from tap_vero_segment.collector.commands.backup import backup as run  # noqa: PLC0415

    click.echo(run(store, file))


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option("--replace", is_flag=True, help="Move a store that is there aside; none is deleted.")
def restore(file: Path, store: str, *, replace: bool) -> None:
    """Make a store of FILE, which `backup` has written. Stop the collector before.

    The copy is checked before it becomes the store. Refuses where there is a store, unless
    --replace is given, and where another process has it open.
    """
    from tap_vero_segment.collector.commands.backup import restore as run  # noqa: PLC0415

    click.echo(run(store, file, replace=replace))


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


@main.group("dead-letters", cls=_Group)
def dead_letters() -> None:
    """See what was received and could not be mapped, read it again after an upgrade, delete it."""


_NUMBER = click.IntRange(1, 2**63 - 1)
_reason_option = click.option(
    "--reason", help="All of this reason, as `dead-letters list --by-reason` prints it."
)


@dead_letters.command("list")
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@click.option("--by-reason", is_flag=True, help="Print the reasons and their counts instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
def list_dead_letters(store: str, *, by_reason: bool, as_json: bool) -> None:
    """Print each dead letter's number, time, input, size and reason."""
    from tap_vero_segment.collector.commands.dead_letters import list_dead_letters as lines_of  # noqa: PLC0415

    for line in lines_of(store, by_reason=by_reason, as_json=as_json):
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
@_reason_option
def replay_dead_letters(numbers: tuple[int, ...], store: str, reason: str | None) -> None:
    """Read dead letters again, all of them or some, and store what is an event now.

    Mended events come out of the tap as new ones. What still cannot be mapped stays.
    """
    from tap_vero_segment.collector.commands.replay import replay as run  # noqa: PLC0415

    _check_choice(numbers, reason)
    click.echo(run(store, numbers, reason))


@dead_letters.command("delete")
@click.argument("numbers", nargs=-1, type=_NUMBER, metavar="[NUMBER]...")
@_store_option(envvar=settings.variable("store"), show_envvar=True)
@_reason_option
@click.option("--all", "everything", is_flag=True, help="All dead letters that there are now.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete_dead_letters(
    numbers: tuple[int, ...], store: str, reason: str | None, *, everything: bool, yes: bool
) -> None:
    """Delete dead letters for good: all that are named, or none where a number has none.

    A body that comes again is a dead letter again, under another number.
    """
    from tap_vero_segment.collector.commands.dead_letters import delete_dead_letters as run  # noqa: PLC0415

    _check_choice(numbers, reason, everything=everything)
    if not (numbers or reason is not None or everything):
        msg = "Name the dead letters by their numbers, by --reason, or all of them by --all."
        raise click.UsageError(msg)
    if not (yes or sys.stdin.isatty()):
        msg = "nobody can be asked, as standard input is not a terminal: add --yes"
        raise UserError(msg)

    def confirm(question: str) -> None:
        if not yes:
            click.confirm(question, abort=True)

    click.echo(run(store, numbers, reason, confirm))


def _check_choice(
    numbers: tuple[int, ...], reason: str | None, *, everything: bool = False
) -> None:
    if (bool(numbers) + (reason is not None) + everything) > 1:
        msg = "Give numbers, --reason or --all, and only one of them."
        raise click.UsageError(msg)
