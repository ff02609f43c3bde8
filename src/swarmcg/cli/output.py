"""Standard output that knows why something could not be written there."""

import io
import sys

__all__ = ["take_failure", "watch_output"]


class _Output(io.TextIOWrapper):
    """Remembers the first write that failed. The error alone does not tell which file it was; what was too long for
    the buffer is not kept there, for a flush to fail again; and argparse says nothing of a help that cannot be written.

    That a reader went away is not remembered.
    """

    failure: OSError | None = None

    def write(self, text: str, /) -> int:
        """See :meth:`io.TextIOBase.write`."""
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as e:
            self.failure = self.failure or e
            raise


def watch_output() -> None:
    """Puts one in the place of Python's own standard output, buffered also where PYTHONUNBUFFERED says otherwise: a
    disk that is nearly full takes a part of a write, and only a buffer writes the rest.
    """
    out = sys.stdout
    if type(out) is io.TextIOWrapper:  # not that of a test, nor none
        below = io.BufferedWriter(out.buffer) if isinstance(out.buffer, io.RawIOBase) else out.buffer
        sys.stdout = _Output(below, encoding=out.encoding, errors=out.errors, line_buffering=out.isatty())


def take_failure() -> OSError | None:
    """Why standard output did not take in all that was written until now, told once; None when it did.

    Raises BrokenPipeError when its reader went away.
    """
    out = sys.stdout
    if out is None:
        return None
    try:
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as e:
        return e
    if isinstance(out, _Output):
        failure, out.failure = out.failure, None
        return failure
    return None
