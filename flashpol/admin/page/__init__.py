"""The page for people: server-rendered HTML, which a small module in the browser keeps fresh.

    markup     elements; what is not markup is escaped       figures   numbers, sizes and times in words
    overview   is all well, and the figures of the moment    tables    distributions, listeners, workers
    policies   each policy with its findings, the form       document  the whole, and its files
    chart      drawings

The browser asks for the same page again and copies what changed, so there is one place that renders, and the page says
the same without JavaScript. The parts that cost most (policies, findings) are sent again only when they changed.
"""
