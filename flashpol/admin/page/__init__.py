"""The page for people: HTML that the server renders, and a script in the browser that keeps it up to date.

    templates/    the HTML, in Jinja2              status_view   figures of the status document
    rendering     templates and files, ready made  policy_view   policies with their findings, decisions
    live.js       copies what changed              tls_view      listeners with TLS, handshakes, certificates
                                                   chart         the curve of replies per second

Templates escape every value, so no text of a policy or a client becomes markup. The browser fetches the same page again
and copies what changed: there is one place that renders, and the page says the same without JavaScript. The parts that
cost most (policies, findings) are sent again only when they changed.
"""
