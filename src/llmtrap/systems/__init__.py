"""What operating systems differ in, in one place: nothing outside of this package asks which one it runs on.

Every name here is there on every system. Where a system lacks what a name needs, it does the nearest that is safe, and
its docstring says what that is.
"""
