"""`bestroute-plot`: pictures of the JSON that `bestroute eval`, `bestroute calibrate` and the bench write.

    main         the command line: a report in, files out
    report       reads a report; every error names the file and the key
    style        colours, fonts, titles, and how a figure is written
    labels       places texts beside points so that none covers another
    curve        eval: quality against cost
    reliability  eval: measured against predicted
    tradeoff     calibrate: the curve, and the setting that was chosen on it
    latency      bestroute-bench: latency against load; the percentiles of a single run

A chart is a function from a report to a matplotlib figure. It reads no files and writes none.
"""
