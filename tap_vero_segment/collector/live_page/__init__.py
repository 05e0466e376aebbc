"""The live page, ``GET /``: whether events arrive, for whoever holds the read token.

A request passes ``routes.py``, which knows the paths and who may have them (``auth.py``). What is
shown is read from the store in one go (``snapshot.py``), and is written as HTML (``views.py``,
``templates/``) or goes out as it changes (``feed.py``). What its buttons do is in ``actions.py``.

Nothing that came in is ever HTML: the templates escape everything, and the script, which makes
nodes and text only, is held to that by the browser (the policy in ``views.py``).
"""
