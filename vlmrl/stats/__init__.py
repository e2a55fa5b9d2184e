"""What can be said of numbers that were measured: intervals, comparisons, how well scores rank."""

from vlmrl.stats.intervals import (
    Interval,
    bootstrap_mean,
    clopper_pearson,
    difference_interval,
    interquartile_mean,
    interquartile_mean_interval,
    percentile_interval,
    student_mean,
    student_quantile,
    wilson,
)
from vlmrl.stats.ranking import (
    auroc,
    auroc_interval,
    average_precision,
    epic_distance,
    group_weights,
    kendall_tau_b,
    pearson,
    spearman,
)

__all__ = [
    "Interval",
    "auroc",
    "auroc_interval",
    "average_precision",
    "bootstrap_mean",
    "clopper_pearson",
    "difference_interval",
    "epic_distance",
    "group_weights",
    "interquartile_mean",
    "interquartile_mean_interval",
    "kendall_tau_b",
    "pearson",
    "percentile_interval",
    "spearman",
    "student_mean",
    "student_quantile",
    "wilson",
]
