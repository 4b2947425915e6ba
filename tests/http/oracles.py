"""Other readers of HTTP/1.1: llhttp (by httptools) and h11, brought to one form."""

from dataclasses import dataclass, field

# Long streams are not generated; h11's own limit is out of the way.
H11_LIMIT_BYTES = 1 << 20


@dataclass
class Seen:
    """One request, as an oracle understands it."""

    method: bytes
    target: bytes
    minor: int
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    is_whole: bool = False
    goes_on: bool = True  # the connection may have another request


@dataclass
class Verdict:
    messages: list[Seen] = field(default_factory=list)
    error: str | None = None


class Callbacks:
    """What httptools calls."""

    def __init__(self) -> None:
        self.verdict = Verdict()

    def on_message_begin(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.has_head = False

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:  # else it is a trailer
            self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.has_head = True
        minor = int(self.parser.get_http_version()[2:])
        self.verdict.messages.append(
            Seen(self.parser.get_method(), self.target, minor, self.fields)
        )

    def on_body(self, part: bytes) -> None:
        self.verdict.messages[-1].body += part

    def on_message_complete(self) -> None:
        message = self.verdict.messages[-1]
        message.is_whole = True
        message.goes_on = self.parser.should_keep_alive()


def read_llhttp(data: bytes) -> Verdict:
    import httptools

    callbacks = Callbacks()
    callbacks.parser = httptools.HttpRequestParser(callbacks)
    try:
        callbacks.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        callbacks.verdict.messages[-1].goes_on = False
    except httptools.HttpParserError as error:
        callbacks.verdict.error = f"{type(error).__name__}: {error}"
    return callbacks.verdict


def next_cycle(connection: object) -> bool:
    """Answers, so that h11 reads the next request; whether it will."""
    import h11

    if connection.their_state is not h11.DONE:  # type: ignore[attr-defined]
        return False
    connection.send(h11.Response(status_code=204, headers=[]))  # type: ignore[attr-defined]
    connection.send(h11.EndOfMessage())  # type: ignore[attr-defined]
    if connection.our_state is not h11.DONE:  # type: ignore[attr-defined]
        return False
    connection.start_next_cycle()  # type: ignore[attr-defined]
    return True


def read_h11(data: bytes) -> Verdict:
    import h11

    verdict = Verdict()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=H11_LIMIT_BYTES)
    connection.receive_data(data)
    try:
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if event is h11.PAUSED:
                break
            if isinstance(event, h11.Request):
                minor = int(event.http_version[2:])
                fields = [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]
                verdict.messages.append(
                    Seen(bytes(event.method), bytes(event.target), minor, fields)
                )
            elif isinstance(event, h11.Data):
                verdict.messages[-1].body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                verdict.messages[-1].is_whole = True
                verdict.messages[-1].goes_on = next_cycle(connection)
                if not verdict.messages[-1].goes_on:
                    break
    except h11.RemoteProtocolError as error:
        verdict.error = str(error)
    return verdict
