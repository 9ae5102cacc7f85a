"""What operators see over HTTP: metrics, health, status, a page, and decisions by the policies that are served.

endpoint         the admin process and its paths    metrics      Prometheus families; names every metric
context          what the endpoint shows            status       the status document
history          samples of the last minutes        problems     what needs an operator's attention
tls              certificates, failed handshakes    problem_kinds  every kind of problem
policy_analysis  lint and decide, in a thread       decide       /-/decide
formatting       numbers as people read them        page/        HTML made from the status document
ruffle           /-/ruffle
"""
