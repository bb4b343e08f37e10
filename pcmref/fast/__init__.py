"""nn's operations, fast; `pcmref.fast:Backend` is golden's view of them."""


def __getattr__(name):
    """Backend, when asked for: the package itself does without golden."""
    if name != "Backend":
        raise AttributeError(f"module 'pcmref.fast' has no attribute {name!r}")
    from pcmref.fast.backend import Backend

    return Backend
