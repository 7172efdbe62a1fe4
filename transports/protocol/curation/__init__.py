"""What of a server's tools clients see, and how: which are served and by what names, what is said of them, which arguments are
given for them. One answer for lists and calls, so that what a list shows can be called and nothing else. Pure; knows the protocol
and the wildcards of `merging`."""
