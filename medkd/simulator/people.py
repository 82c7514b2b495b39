"""Pools the clinic draws its patients from: names, work, old illnesses, allergies and how long things have lasted."""

from __future__ import annotations

FIRST_NAMES = {
    "female": (
        "Linda Maria Susan Karen Nancy Betty Helen Sandra Donna Carol Ruth Sharon Laura Amy Angela Emma Julia Grace Olivia "
        "Diane Fatima Aisha Mei Priya Elena Sofia Ingrid Yuki Leila Rosa"
    ).split(),
    "male": (
        "James Robert John Michael David William Thomas Daniel Paul Mark George Kevin Brian Edward Steven Jason Ryan Eric Peter "
        "Samuel Omar Ahmed Wei Raj Carlos Diego Lars Kenji Hassan Luis"
    ).split(),
}
LAST_NAMES = (
    "Smith Johnson Williams Brown Jones Garcia Miller Davis Martinez Lopez Wilson Anderson Taylor Moore Jackson Martin Lee "
    "Thompson White Harris Clark Lewis Robinson Walker Young Allen King Wright Scott Torres Nguyen Hill Flores Green Adams "
    "Nelson Baker Hall Rivera Campbell Mitchell Carter Roberts Patel Khan Kim Chen Singh Murphy Cooper Reed Bailey Bell "
    "Gomez Kelly Howard Ward Cox Diaz Richardson"
).split()

OCCUPATIONS = (
    "teacher, nurse, carpenter, electrician, plumber, accountant, lawyer, engineer, cashier, waiter, chef, baker, bus "
    "driver, truck driver, taxi driver, farmer, gardener, librarian, journalist, photographer, musician, mechanic, welder, "
    "painter, roofer, hairdresser, tailor, butcher, pharmacist, dentist, firefighter, police officer, mail carrier, "
    "security guard, secretary, receptionist, software developer, salesperson, bank clerk, construction worker, warehouse "
    "worker, factory worker, social worker, translator"
).split(", ")

# Old illnesses with the medicines that people commonly take for them before they come.
CONDITIONS: dict[str, tuple[str, ...]] = {
    "hypertension": ("lisinopril", "amlodipine", "losartan"),
    "type 2 diabetes": ("metformin", "glipizide"),
    "high cholesterol": ("atorvastatin", "simvastatin"),
    "asthma": ("albuterol", "budesonide"),
    "hypothyroidism": ("levothyroxine",),
    "GERD": ("omeprazole", "famotidine"),
    "depression": ("sertraline", "fluoxetine"),
    "migraine": ("sumatriptan", "topiramate"),
    "osteoarthritis": ("acetaminophen", "meloxicam"),
    "atrial fibrillation": ("apixaban", "warfarin"),
    "gout": ("allopurinol",),
    "allergic rhinitis": ("loratadine", "cetirizine"),
    "insomnia": ("melatonin", "trazodone"),
    "epilepsy": ("levetiracetam",),
    "eczema": ("hydrocortisone cream",),
    "anemia": ("ferrous sulfate",),
    "kidney stones": (),
    "sleep apnea": (),
    "psoriasis": (),
    "osteoporosis": ("alendronate",),
    "glaucoma": ("latanoprost",),
    "heart disease": ("aspirin", "metoprolol"),
}

OVER_THE_COUNTER = ("ibuprofen", "vitamin D", "acetaminophen", "cetirizine", "melatonin", "aspirin", "omeprazole")

ALLERGIES = tuple(
    (
        "penicillin, sulfa drugs, aspirin, ibuprofen, codeine, latex, peanuts, shellfish, eggs, bee stings, pollen, cat hair, "
        "dust, iodine, strawberries, tree nuts"
    ).split(", ")
)

RELATIVES = ("mother", "father", "sister", "brother", "grandmother", "grandfather", "aunt", "uncle")
OUTSIDERS = ("neighbor", "coworker", "best friend", "boss", "roommate")
FAMILY_CONDITIONS = tuple(
    (
        "heart disease, breast cancer, colon cancer, lung cancer, stroke, type 2 diabetes, high blood pressure, asthma, "
        "glaucoma, Alzheimer's disease, kidney disease, thyroid disease, depression, osteoporosis, rheumatoid arthritis"
    ).split(", ")
)

ACUTE_DURATIONS = tuple(
    (
        "two days, three days, four days, five days, six days, a week, ten days, two weeks, 2 days, 3 days, 4 days, 5 days, 10 "
        "days, about a week, three weeks, 2 weeks"
    ).split(", ")
)
CHRONIC_DURATIONS = tuple(
    (
        "two months, three months, four months, six months, a year, two years, three years, five years, 2 months, 3 months, 8 "
        "months, two weeks, six weeks, several months, a few weeks, 10 years"
    ).split(", ")
)
