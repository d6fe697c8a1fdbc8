"""Connections: systems that have images of their own, how each reports uploads, and how it takes tags.

A preset (`worker/connect/presets`) has the values that are the same for every installation of one system; they lie
beneath the operator's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field
from pydantic.config import JsonDict

from worker.messages.events import DEFAULT_INSTANCE
from worker.settings.base import HeaderSecret, LocalPath, Section
from worker.settings.credentials import CredentialKind, CredentialSettings
from worker.settings.cursors import NOW, CursorOrNow
from worker.settings.expressions import AddressTemplate, Expression, TableOfValues, ValueTree, expressions_in
from worker.settings.system import HttpSettings

_EXPRESSION: JsonDict = {"allowed": "a JMESPath expression"}
_EXPRESSIONS: JsonDict = {"allowed": "a table of names with a JMESPath expression each"}
_ADDRESS: JsonDict = {"allowed": "a path that begins with /, or an address; `{name}` is filled in"}
_STATUSES: JsonDict = {"allowed": "a list of HTTP statuses"}

_A_PAGE: Final = {"cursor": "2026-01-01T00:00:00Z", "page": 1, "page_size": 100}
_LISTING_VARIABLES: Final = "cursor, page and page_size"

HttpStatus = Annotated[int, Field(ge=100, le=599)]


class MappingSettings(Section):
    """How an event is read out of what a system says about one image."""

    accept: Expression | None = Field(
        None,
        description="What is not true by it is answered, counted and passed over. Unset: everything is taken.",
        json_schema_extra=_EXPRESSION,
    )
    asset_id: Expression | None = Field(
        None, description="The system's id of the image.", json_schema_extra=_EXPRESSION
    )
    variables: dict[str, Expression] = Field(
        {}, description="Further values by name, for `content_url`.", json_schema_extra=_EXPRESSIONS
    )
    content_url: AddressTemplate | None = Field(
        None,
        description="Where the image is fetched from. `asset_id` and `variables` are filled in.",
        json_schema_extra=_ADDRESS,
    )
    content_path: Expression | None = Field(
        None,
        description="In place of `content_url`: its path below `sources.path_roots`.",
        json_schema_extra=_EXPRESSION,
    )
    file_name: Expression | None = Field(None, description="Its name, for people.", json_schema_extra=_EXPRESSION)
    mime_type: Expression | None = Field(None, description="Its type.", json_schema_extra=_EXPRESSION)
    time: Expression | None = Field(
        None,
        description="When it was uploaded: a text as in RFC 3339, or seconds since 1970.",
        json_schema_extra=_EXPRESSION,
    )
    existing_tags: Expression | None = Field(
        None, description="Tags that people have given it.", json_schema_extra=_EXPRESSION
    )
    mark: Expression | None = Field(
        None,
        description="What changes with the image and with nothing else, such as its checksum: the same image with the "
        "same mark is taken once. Unset: everything that was said of it.",
        json_schema_extra=_EXPRESSION,
    )
    context: dict[str, Expression] = Field(
        {},
        description="Values by name that the target needs to write tags; they travel with the event.",
        json_schema_extra=_EXPRESSIONS,
    )


class InletSettings(MappingSettings):
    """The HTTP inlet: the system posts to `/in/NAME`. CloudEvents of ours are taken as they are."""

    enabled: bool = Field(False, description="Take messages.")
    token_header: str = Field(
        "Authorization",
        pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
        description="Header in which the system sends the token: as `Bearer` in `Authorization`, else as it is.",
        json_schema_extra={"allowed": "a name of an HTTP header"},
    )
    token: HeaderSecret | None = Field(None, description="The token. A connection whose inlet is on needs one.")


class PollSettings(MappingSettings):
    """The poller: lists what is new in a system that can't push, or that never sends again what got lost."""

    enabled: bool = Field(False, description="List.")
    kind: Literal["request", "s3", "webdav"] = Field(
        "request",
        description="`request`: by the request below; `s3`: the objects of `bucket`, with the keys of `s3`; `webdav`: "
        "the images in the folder `prefix` of a Nextcloud, by a search at `path`.",
    )
    every_s: float = Field(60, ge=1, description="Time between two listings.")
    overlap_s: float = Field(
        300,
        ge=0,
        description="How far back of the newest item each listing begins, for a search index that lags behind.",
    )
    method: Literal["GET", "POST"] = Field("GET", description="HTTP method.")
    path: AddressTemplate | None = Field(
        None,
        description="Address of a page. `{cursor}` (where it begins), `{page}` (1 for the first from there) and "
        "`{page_size}` are filled in.",
        json_schema_extra=_ADDRESS,
    )
    body: TableOfValues = Field(
        {},
        description="JSON to send. A text that begins with `=` is an expression over `cursor`, `page` and `page_size`.",
        json_schema_extra={"allowed": "a table"},
    )
    items: Expression = Field("@", description="The list of items in a page.", json_schema_extra=_EXPRESSION)
    cursor: Expression | None = Field(
        None,
        description="What the items are sorted by, upwards, in one item: a time as in RFC 3339, or a growing number. "
        "Needed where the request has `{cursor}`; without that, everything is listed each time, and what is older is "
        "passed over.",
        json_schema_extra=_EXPRESSION,
    )
    begin: CursorOrNow = Field(
        NOW,
        description="Where the very first listing begins: `now`, or a value of `cursor`; `autotag connect rewind` goes "
        "back to one later.",
        json_schema_extra={"allowed": "`now`, a time as in RFC 3339, or a number"},
    )
    page_size: int = Field(100, ge=1, le=1000, description="Items of a page.")
    bucket: str | None = Field(None, min_length=1, description="`s3`: the bucket.")
    prefix: str = Field(
        "", description="`s3`: what the keys begin with. `webdav`: the folder, such as `/files/USER/Photos`."
    )

    def asks_for(self, variable: str) -> bool:
        """Whether the request has a variable, in its address or in an expression of its body."""
        if self.kind == "webdav":
            return True
        word = re.compile(rf"\b{variable}\b")
        in_path = self.path is not None and variable in _variables(self.path)
        return in_path or any(word.search(text) for _, text in expressions_in(self.body))


class RequestSettings(Section):
    """A request to the system."""

    method: str = Field(
        "GET",
        pattern="^[A-Z]{3,12}$",
        description="HTTP method.",
        json_schema_extra={"allowed": "a method in capitals"},
    )
    path: AddressTemplate | None = Field(
        None, description="Address; unset: there is no such request.", json_schema_extra=_ADDRESS
    )
    headers: dict[str, str] = Field(
        {}, description="Further headers, as they are.", json_schema_extra={"allowed": "a table of texts"}
    )
    body: ValueTree = Field(
        None,
        description="JSON to send. A text that begins with `=` is a JMESPath expression; `==` begins a text with `=`.",
        json_schema_extra={"allowed": "a table or a list", "default_text": "nothing"},
    )
    form: bool = Field(False, description="Send `body` as a form, not as JSON.")
    done_on: tuple[HttpStatus, ...] = Field(
        (), description="Statuses besides 2xx that mean: it is so.", json_schema_extra=_STATUSES
    )
    done_if: Expression | None = Field(
        None,
        description="What has to be true of the JSON in the answer, for systems that refuse with 200; unset: nothing.",
        json_schema_extra=_EXPRESSION,
    )


class ReadSettings(RequestSettings):
    """Reads the tags of an asset, or those that the system knows."""

    tags: Expression = Field(
        "@",
        description="The tags in the answer: a list of names, of objects with `name` and `id`, or of numbers, which "
        "are ids whose names `find` lists.",
        json_schema_extra=_EXPRESSION,
    )
    format: Literal["json", "dav"] = Field(
        "json", description="`dav`: asks for `id` and `display-name` of ownCloud's tags; `tags` reads the list of both."
    )


class CreateSettings(RequestSettings):
    """Makes a tag that the system does not know yet."""

    id: Expression | None = Field(
        None,
        description="Its id, in `body` (JSON) or `headers` of the answer; unset: it is looked up once more.",
        json_schema_extra=_EXPRESSION,
    )


class ChangeSettings(RequestSettings):
    """Adds tags to an asset, or removes them."""

    each: Literal["tag", "all"] = Field(
        "tag",
        description="`tag`: a request for each tag (`tag`, `tag_id`); `all`: one for all (`tags`, `tag_ids`; with "
        "`add` alone, for a system that replaces: `all_tags`, `all_tag_ids`, which are those that stand afterwards).",
    )


class TargetSettings(Section):
    """The target: where the tags of a result are written."""

    enabled: bool = Field(False, description="Write tags.")
    kind: Literal["request", "s3"] = Field(
        "request", description="`request`: by the requests below; `s3`: as a tag of the object, with the keys of `s3`."
    )
    accept: Expression | None = Field(
        None,
        description="Which results of other publishers' events are written too. Unset: only those of this connection.",
        json_schema_extra=_EXPRESSION,
    )
    read: ReadSettings = Field(ReadSettings(), description="Tags of an asset.")
    find: ReadSettings = Field(ReadSettings(), description="Tags that the system knows, by name.")
    create: CreateSettings = Field(CreateSettings(), description="A new tag.")
    add: ChangeSettings = Field(ChangeSettings(), description="Adding.")
    remove: ChangeSettings = Field(ChangeSettings(), description="Removing.")
    probe: ReadSettings = Field(ReadSettings(), description="A harmless request, to see whether it lets us in.")
    parent: str = Field(
        "",
        description="Tags of ours are written below this one, with `/` between: so the system itself shows whose they "
        "are.",
    )
    gone_on: tuple[HttpStatus, ...] = Field(
        (404, 410), description="Statuses that mean: there is no such asset.", json_schema_extra=_STATUSES
    )
    later_on: tuple[HttpStatus, ...] = Field(
        (408, 423, 425, 429),
        description="Statuses besides 5xx after which the write is made later.",
        json_schema_extra=_STATUSES,
    )
    settle_s: float = Field(
        0, ge=0, description="Time to wait after an upload before tags are written, for systems that drop earlier ones."
    )
    read_back_s: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        max_length=5,
        description="Times after a write at which the tags are read once more, and written again if the system has "
        "dropped them.",
        json_schema_extra={"allowed": "a list of numbers above 0"},
    )
    at_once: int = Field(4, ge=1, le=32, description="Assets that are written at a time.")
    writes_per_s: float = Field(20, gt=0, description="Most assets that are written in a second.")
    timeout_s: float = Field(20, gt=0, description="Longest wait for an answer.")
    most_tags: int = Field(0, ge=0, description="Most tags of ours on one asset; 0: no limit.")
    longest_name: int = Field(0, ge=0, description="Longest name of a tag; 0: no limit.")
    longest_name_in: Literal["characters", "utf8", "utf16"] = Field(
        "characters", description="What `longest_name` counts."
    )
    forbidden: str = Field("", description="Characters that a name can't have: a space stands in their place.")


class ConnectionCredentialSettings(CredentialSettings):
    """What is sent to the system, where that differs from `sources.credentials` of its origin."""

    kind: CredentialKind | None = Field(  # type: ignore[assignment]
        None, description="What kind of credential it is. Unset: that of `sources.credentials` for this origin."
    )

    def wrong_fields(self) -> Iterator[tuple[str, str]]:
        """See `CredentialSettings`."""
        if self.kind is not None:
            yield from super().wrong_fields()
            return
        for name in type(self).model_fields:
            if getattr(self, name) is not None:
                yield name, "has no effect without kind"


class ConnectionSettings(Section):
    """One system: its address, and which of inlet, poller and target are used."""

    enabled: bool = Field(True, description="Use the connection.")
    preset: str | None = Field(None, description="The system, if it is one that is known: `autotag connect presets`.")
    url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#@*]+(/[^\s?#]*)?$",
        description="Its address, below which all paths are.",
        json_schema_extra={"allowed": "an http or https address without query"},
    )
    instance: str = Field(
        DEFAULT_INSTANCE,
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="Instance of its events.",
        json_schema_extra={"allowed": "a name of an instance"},
    )
    lane: Literal["live", "bulk"] = Field("live", description="Where its events are published.")
    s3: str | None = Field(None, description="Name of the service in `sources.s3`, for `s3` below.")
    allow_private: bool = Field(True, description="Its address may be a private one.")
    ca_file: LocalPath | None = Field(
        None, description="Further certificate authorities (PEM) that may sign its certificate."
    )
    credential: ConnectionCredentialSettings = Field(ConnectionCredentialSettings(), description="Who we are to it.")
    inlet: InletSettings = Field(InletSettings(), description="What it posts.")
    poll: PollSettings = Field(PollSettings(), description="What is listed.")
    target: TargetSettings = Field(TargetSettings(), description="Where tags go.")

    def wrong_fields(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Settings that are missing or mean nothing, by their place in the connection; each with what is wrong."""
        for field, message in self.credential.wrong_fields():
            yield ("credential", field), message
        if not self.enabled:
            return
        if not (self.inlet.enabled or self.poll.enabled or self.target.enabled):
            yield ("enabled",), "nothing of it is used: switch inlet, poll or target on"
        yield from self._wrong_in_inlet()
        yield from self._wrong_in_poll()
        if self.target.enabled and self.target.kind == "request":
            replaces = self.target.add.each == "all"  # then `all_tags` may be all that is sent
            for name in ("read", "add") if replaces else ("read", "add", "remove"):
                if getattr(self.target, name).path is None:
                    yield ("target", name, "path"), "is missing"
        if self.s3 is None and "s3" in {each.kind for each in (self.poll, self.target) if each.enabled}:
            yield ("s3",), "is missing: it names the service"
        if self.url is None and self._needs_url():
            yield ("url",), "is missing: paths are below it"

    def _wrong_in_inlet(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if not self.inlet.enabled:
            return
        if self.inlet.token is None:
            yield ("inlet", "token"), "is missing: anyone could send events"
        if self.inlet.asset_id is not None:  # without a mapping only CloudEvents of ours are taken
            yield from _wrong_in_mapping("inlet", self.inlet)

    def _wrong_in_poll(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if not self.poll.enabled:
            return
        if self.poll.kind == "s3":
            if self.poll.bucket is None:
                yield ("poll", "bucket"), "is missing"
            return
        yield from _wrong_in_mapping("poll", self.poll)
        if self.poll.path is None:
            yield ("poll", "path"), "is missing"
        if self.poll.cursor is None and self.poll.asks_for("cursor"):
            yield ("poll", "cursor"), "is missing: the request has {cursor}"
        if self.poll.kind == "webdav" and not self.poll.prefix.startswith("/files/"):
            yield ("poll", "prefix"), "has to name the folder, such as /files/USER"
        unknown = _unknown_variables(self.poll.path, set(_A_PAGE))
        if unknown:
            yield ("poll", "path"), f"names what is not among {_LISTING_VARIABLES}: {', '.join(unknown)}"
        for place, text in expressions_in(self.poll.body):
            if _names_nothing(text):
                yield ("poll", "body"), f"{place.removeprefix('.')}: `{text}` names none of {_LISTING_VARIABLES}"

    def _needs_url(self) -> bool:
        target = self.target
        requests = (target.read, target.find, target.create, target.add, target.remove, target.probe)
        paths = [each.path for each in requests if target.enabled and target.kind == "request"]
        paths += [self.poll.path, self.poll.content_url] if self.poll.enabled and self.poll.kind != "s3" else []
        paths += [self.inlet.content_url] if self.inlet.enabled else []
        return any(path is not None and path.startswith(("/", "{/")) for path in paths)


def _wrong_in_mapping(name: str, mapping: MappingSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    if mapping.asset_id is None:
        yield (name, "asset_id"), "is missing"
    if (mapping.content_url is None) is (mapping.content_path is None):
        yield (name, "content_url"), "exactly one of content_url and content_path is needed"
    unknown = _unknown_variables(mapping.content_url, {"asset_id", *mapping.variables})
    if unknown:
        yield (name, "content_url"), f"names what is not among asset_id and variables: {', '.join(unknown)}"


def _unknown_variables(template: str | None, known: set[str]) -> list[str]:
    return [] if template is None else sorted(_variables(template) - known)


def _names_nothing(text: str) -> bool:
    """Whether an expression over a page finds nothing, or can't be read at all."""
    from jmespath.exceptions import JMESPathError

    from worker.settings.jmespath_language import OPTIONS, compiled

    try:
        return compiled(text).search(_A_PAGE, options=OPTIONS) is None
    except (JMESPathError, TypeError, ValueError, ArithmeticError):
        return True


def _variables(template: str) -> set[str]:
    from uritemplate import variables

    return {str(name) for name in variables(template)}


class ConnectorHttpSettings(HttpSettings):
    """Where `autotag connect` listens: inlets, health, metrics and its status."""

    port: int = Field(9465, ge=0, le=65535, description="Port to listen on; 0: any free one.")


class ConnectorSettings(Section):
    """The process `autotag connect`."""

    http: ConnectorHttpSettings = Field(ConnectorHttpSettings(), description="HTTP of `autotag connect`.")
    delays_s: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (5, 30, 120, 600),
        min_length=1,
        description="Waits before a write is made again, one after the other; the last one for all further ones.",
    )
    keep_days: float = Field(
        400, gt=0, description="How long it is remembered which images were seen and which tags were written."
    )
