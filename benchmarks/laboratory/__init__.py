"""How often is tabkit wrong? Tables whose truth is known go through ``tabkit run``, and its errors are counted.

``worlds`` are populations that can be drawn from without end, ``scenarios`` what is asked of them, ``draws`` one table
through the front door, ``tally`` the rates of many. ``python -m benchmarks.laboratory`` has the commands.
"""
