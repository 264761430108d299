"""Standard deviation score (SDS) of a bone age for the chronological age.

The reference is the Brush Foundation study (Greulich & Pyle, Radiographic Atlas of Skeletal
Development of the Hand and Wrist, 2nd edition 1959, tables III and IV): mean and standard deviation
of skeletal age by chronological age, of children in Cleveland in the 1930s. Other populations
mature differently, so the score compares a child with those; it does not say whether the child is
healthy.
"""

from __future__ import annotations

import numpy as np

REFERENCE = "Brush Foundation"
"""The name of the reference, which is shown with every score."""

_GIRLS_AND_BOYS_AT = (
    *(3, 6, 9, 12, 18, 24, 30, 36, 42, 48, 54, 60, 72, 84, 96, 108, 120, 132, 144, 156, 168, 180),
    192,
)
_AGES = {False: _GIRLS_AND_BOYS_AT, True: (*_GIRLS_AND_BOYS_AT, 204)}
_MEANS = {
    False: (
        *(3.02, 6.04, 9.05, 12.04, 18.22, 24.16, 30.96, 36.63, 43.50, 50.14, 60.06, 66.21, 78.50),
        *(89.30, 100.66, 113.86, 125.66, 137.86, 149.62, 162.28, 174.25, 183.62, 189.44),
    ),
    True: (
        *(3.01, 6.09, 9.56, 12.74, 19.36, 25.97, 32.40, 38.21, 43.89, 49.04, 56.00, 62.43, 75.46),
        *(88.20, 101.38, 113.90, 125.68, 137.32, 148.82, 158.39, 170.02, 182.72, 195.32, 206.21),
    ),
}
_DEVIATIONS = {
    False: (
        *(0.72, 1.16, 1.36, 1.77, 3.49, 4.64, 5.37, 5.97, 7.48, 8.98, 10.73, 11.65, 10.23, 9.64),
        *(10.23, 10.74, 11.73, 11.94, 10.24, 10.67, 11.30, 9.23, 7.31),
    ),
    True: (
        *(0.69, 1.13, 1.43, 1.97, 3.52, 3.92, 4.52, 5.08, 5.40, 6.66, 8.36, 8.79, 9.17, 8.91),
        *(9.10, 9.00, 9.79, 10.09, 10.38, 10.44, 10.72, 11.32, 12.86, 13.05),
    ),
}


def deviation_score(bone_age: float, age: float, male: bool) -> float | None:
    """Returns the standard deviation score: (bone age − mean at that age) / SD at that age.

    Mean and SD are interpolated linearly between the ages of the reference.

    Args:
        bone_age: Months.
        age: Chronological age, months.
        male: The child's sex.

    Returns:
        The score, positive for an advanced bone age; None outside the ages of the reference, 3 to
        192 months for girls and 3 to 204 for boys.
    """
    ages = _AGES[male]
    if not ages[0] <= age <= ages[-1]:
        return None
    mean = np.interp(age, ages, _MEANS[male])
    return float((bone_age - mean) / np.interp(age, ages, _DEVIATIONS[male]))
