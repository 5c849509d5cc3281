"""HTTP/1.1 as uvicorn has it on httptools, but that offers of another protocol are declined and the request is read to its end.

White space behind a header's value is no part of it (RFC 9112, section 5.1); the parser leaves it there.

Java's HttpClient offers h2c with each of its first requests. The parser takes whatever follows the head for the other protocol:
the body would be lost, and what is in it be read as a request of its own.
"""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Http11(HttpToolsProtocol):
    """One connection, on which Upgrade is as if it were not there (RFC 9110, section 7.8)."""

    _repeating = False  # the head that was read last, for a parser that has not seen it

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        self._unset_keepalive_if_required()
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                self._decline()
                continue
            except httptools.HttpParserError:
                message = "Invalid HTTP request received."
                self.logger.warning(message)
                self.send_400_response(message)
            return

    def on_message_begin(self) -> None:
        """A head begins."""
        if not self._repeating:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of a head's target."""
        if not self._repeating:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if not self._repeating:
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """A head is here."""
        if not self._repeating:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is here; but where another protocol was offered, its body is still to come."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _decline(self) -> None:
        """Goes on behind a head with an offer by another parser, which is told of the body and of no offer."""
        lengths = [name + b": " + value for name, value in self.headers if name in (b"content-length", b"transfer-encoding")]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets them
        self._repeating = True
        try:
            self.parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *lengths, b"", b""]))
        finally:
            self._repeating = False
