"""What the tests of the kernels share."""

from gram.kernels import dispatch


def forget_choices() -> None:
    """Make the dispatcher read its environment again."""
    for choice in (dispatch.forced, dispatch._never_triton, dispatch._triton_works):
        choice.cache_clear()
