"""Small things that calls need and that are shorter in Python."""


class Draft:
    """The response's payload until one is set: attributes and keys are its fields."""

    def __getitem__(self, name):
        return self.__dict__[name]

    def __setitem__(self, name, value):
        self.__dict__[name] = value

    def __repr__(self):
        return f"payload({self.__dict__!r})"


class Stream:
    """An asynchronous generator with its first piece; ``pieces`` is empty when there is none."""

    __slots__ = ("generator", "pieces")

    def __init__(self, generator, pieces):
        self.generator = generator
        self.pieces = pieces


async def handled(service, handler, before, after):
    """Runs an asynchronous handler with its hooks."""
    if before:
        await _maybe(service.before_handle())
    result = handler()
    if hasattr(result, "__anext__"):
        result = await opened(result)
    else:
        result = await _maybe(result)
    if after:
        await _maybe(service.after_handle())
    return result


async def opened(generator):
    """Runs a generator up to its first piece, so that what fails before it is a proper failure."""
    return Stream(generator, await advanced(generator))


async def advanced(generator):
    """The next piece in a tuple; an empty one at the end."""
    try:
        return (await anext(generator),)
    except StopAsyncIteration:
        return ()


async def closed(generator):
    """Ends a generator whose receiver went away."""
    await generator.aclose()
    return ()


async def _maybe(value):
    return await value if hasattr(value, "__await__") else value


def serve(descriptor, drain, step, register):
    """Runs an event loop on this thread for as long as the process lives."""
    import asyncio

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_task_factory(lambda loop, coro, **more: asyncio.Task(step(coro), loop=loop, **more))
    loop.add_reader(descriptor, drain)
    register(loop)
    while True:
        try:
            loop.run_forever()
        except BaseException:
            # An interruption that came too late for the handler it was meant for; the loop goes on.
            continue
