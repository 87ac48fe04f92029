"""Calls of other systems whose body a service makes piece by piece; rows it reads so."""

PIECE = 65_536


def send(exchange, pieces):
    """Sends what an iterator or a file gives, and gives the answer."""
    try:
        for piece in _iterated(pieces):
            if not exchange.write(piece):
                break
    except BaseException:
        exchange.abort()
        raise
    return exchange.finish()


async def send_async(exchange, pieces):
    """The same in an asynchronous service, where the iterator may be asynchronous, too."""
    try:
        if hasattr(pieces, "__anext__"):
            async for piece in pieces:
                if not await exchange.write(piece):
                    break
        else:
            for piece in _iterated(pieces):
                if not await exchange.write(piece):
                    break
    except BaseException:
        exchange.abort()
        raise
    return await exchange.finish()


def _iterated(pieces):
    if not hasattr(pieces, "read"):
        return pieces
    return _read(pieces)


def _read(file):
    while piece := file.read(PIECE):
        yield piece


async def rows_async(rows):
    """Gives the rows of a statement one after the other."""
    try:
        while piece := await rows.piece():
            for row in piece:
                yield row
    finally:
        rows.close()
