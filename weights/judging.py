"""The decision metric: what a policy saves on measured rows, and what it costs in quality.

Written again in the service's terms (`bestroute eval` replays its own code)
so that training can choose by it.
"""

import numpy as np

from routing_data import costs

LAMBDAS = np.logspace(3, -3, 121)  # in units of 1 / the reference's mean cost


def choose(score, usable, paid, quality, reference):
    """(mean cost, mean quality) of the best usable pair of each row, else the reference."""
    reference_quality, _, reference_paid = reference
    index = np.arange(len(quality))
    pick = np.where(usable, score, -np.inf).argmax(1)
    found = usable.any(1)
    return (np.where(found, paid[index, pick], reference_paid).mean(),
            np.where(found, quality[index, pick], reference_quality).mean())


def threshold_curve(predicted, quality, allowed, estimated, paid, reference, thresholds):
    """(mean cost, mean quality) for each threshold: the cheapest pair that reaches it, else the reference.

    predicted, quality, allowed, estimated, paid: [rows, pairs]; reference: (quality, estimated,
    paid) of [rows].
    """
    cheaper = allowed & (estimated <= reference[1][:, None])
    return np.array([choose(-estimated, cheaper & (predicted >= threshold), paid, quality, reference)
                     for threshold in thresholds])


def utility_curve(predicted, quality, allowed, estimated, paid, reference, lambdas):
    """The same for each lambda: the pair of highest predicted - lambda * cost,
    where it beats the reference's 1."""
    points = []
    for factor in lambdas:
        utility = predicted - factor * estimated
        usable = allowed & (utility > (1 - factor * reference[1])[:, None])
        points.append(choose(utility, usable, paid, quality, reference))
    return np.array(points)


def saving(curve, reference_cost, reference_quality, drop):
    """The largest share of cost saved by a point of the curve at no more than `drop` below the reference."""
    good = curve[:, 1] >= reference_quality * (1 - drop)
    return float(1 - curve[good, 0].min() / reference_cost) if good.any() else 0.0


class Judge:
    """Both curves of predictions for the rows of some labels; rows with another reference are left out."""

    def __init__(self, labels, pairs, models, reference, references):
        self.keep = [i for i, row in enumerate(labels.rows) if row.reference_model in references]
        rows = [labels.rows[i] for i in self.keep]
        self.quality = np.array([[row.quality.get(pair, 0) for pair in pairs] for row in rows])
        self.allowed = labels.measured[self.keep]
        self.estimated = costs(rows, pairs, models, False)
        self.paid = costs(rows, pairs, models, True)
        own = models[reference]
        paid = np.array([own["input_price"] * row.prompt_tokens + own["output_price"]
                         * row.output_tokens.get((row.reference_model, 1), own["avg_output_tokens"])
                         for row in rows])
        self.reference = (np.array([row.reference_quality for row in rows]),
                          costs(rows, [(reference, 1)], models, False)[:, 0], paid)

    def curve(self, predicted, kind="utility"):
        predicted = predicted[self.keep]
        tables = predicted, self.quality, self.allowed, self.estimated, self.paid, self.reference
        if kind == "utility":
            return utility_curve(*tables, LAMBDAS / self.reference[2].mean())
        thresholds = np.concatenate([np.linspace(0, 1, 101),
                                     np.quantile(predicted[self.allowed], np.linspace(0, 1, 101))])
        return threshold_curve(*tables, np.sort(thresholds))

    def report(self, predicted, kind="utility"):
        curve = self.curve(predicted, kind)
        cost, quality = self.reference[2].mean(), self.reference[0].mean()
        return {"reference_quality": round(float(quality), 4), "reference_cost": float(cost),
                **{f"saving_at_{d}_percent": round(saving(curve, cost, quality, d / 100), 4)
                   for d in (1, 2, 5)}}

    def area(self, predicted, kind="utility"):
        """Mean over costs up to the reference's of the best quality within them: higher is better."""
        curve = self.curve(predicted, kind)
        curve = curve[np.argsort(curve[:, 0])]
        best = np.maximum.accumulate(curve[:, 1])
        grid = np.linspace(0, self.reference[2].mean(), 200)
        reached = np.searchsorted(curve[:, 0], grid, side="right") - 1
        return float(np.where(reached < 0, 0, best[np.maximum(reached, 0)]).mean())


def expected_calibration_error(predicted, match, bins=10):
    index = np.minimum((predicted * bins).astype(int), bins - 1)
    return float(sum((index == b).mean() * abs(predicted[index == b].mean() - match[index == b].mean())
                     for b in range(bins) if (index == b).any()))
