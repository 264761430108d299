"""RSNA's terms of use of its radiographs, and the publication to cite."""

RSNA_TERMS = (
    "RSNA 2017 AI Challenge terms of use: research, non-commercial, no redistribution of the images"
)
RSNA_PAGE = (
    "https://www.rsna.org/artificial-intelligence/ai-image-challenge/"
    "rsna-pediatric-bone-age-challenge-2017"
)
"""RSNA's page of the data set and its terms."""
RSNA_CITATION = (
    "Halabi SS, Prevedello LM, Kalpathy-Cramer J, et al. The RSNA Pediatric Bone Age Machine "
    "Learning Challenge. Radiology 2019;290:498-503. doi:10.1148/radiol.2018180736"
)
