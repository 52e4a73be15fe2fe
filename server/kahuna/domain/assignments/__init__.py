"""The rules of assignments: which agent shall do what about an object. docs/design/007-assignments.md explains them.

`exclusive` has the objects that must exist once, `shared` those that several agents hold at the same time; `delivery`
is what an agent may be sent now, `intake` what is believed of what it says, and `fence` when one that was fenced may
come back.

Kahuna does not use them yet; the note says how its database and the agents' stream will. tests/assignments searches all
states that they can get into.
"""
