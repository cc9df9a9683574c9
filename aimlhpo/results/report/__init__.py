"""The report of a study: a page to look at, figures as files, and the same in a notebook.

Read in this order: `data` reads what the figures show out of the storage, as plain dataclasses; `figures` draws it,
with plotly for the page and with matplotlib for files; `page` makes one HTML file of both, from the template
`page.html`. `opened` is what `aimlhpo.open_study` returns.

It only ever reads the study. plotly, matplotlib and Jinja2 come with the extra `report`; they are imported where they
are used.
"""
