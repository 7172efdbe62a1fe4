"""The gateway inside another program: on its event loop, on a thread, in its Tornado application, in its tests."""
