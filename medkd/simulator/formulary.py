"""Medicines that exist, with doses, intervals and courses they are really given in.

`DRUGS` maps a spoken drug name to its `Drug`. The figures are plain textbook adult doses: enough for plausible talk, no
advice to anybody.
"""

from __future__ import annotations

from dataclasses import dataclass

LONG = ("30 days", "60 days", "90 days", "three months", "six months")
WEEKS = ("two weeks", "three weeks", "four weeks", "six weeks", "14 days")
SHORT = ("5 days", "7 days", "10 days", "one week")
ONCE = ("1 day",)

DAILY = ("once daily", "once a day", "every morning")
NIGHTLY = ("at bedtime", "every night", "every evening")
TWICE = ("twice daily", "twice a day", "every 12 hours")
THRICE = ("three times a day", "three times daily", "every 8 hours")
FOUR = ("four times a day", "every 6 hours")
NEEDED = ("as needed", "every 6 hours as needed")
WEEKLY = ("once a week", "once weekly")


@dataclass(frozen=True, kw_only=True)
class Drug:
    """How one medicine is given: any of its doses goes with any of its frequencies and courses."""

    name: str
    doses: tuple[str, ...]
    frequencies: tuple[str, ...]
    courses: tuple[str, ...]
    allergens: tuple[str, ...] = ()
    """Allergies that rule this medicine out, as patients say them."""


_ALLERGENS = {
    "penicillin": ("amoxicillin", "amoxicillin-clavulanate", "penicillin V", "dicloxacillin", "penicillin"),
    "sulfa drugs": ("trimethoprim-sulfamethoxazole", "sulfasalazine", "sulfamethoxazole"),
    "aspirin": ("aspirin", "ibuprofen", "naproxen", "meloxicam", "indomethacin", "diclofenac", "celecoxib"),
    "ibuprofen": ("aspirin", "ibuprofen", "naproxen", "meloxicam", "indomethacin", "diclofenac", "celecoxib"),
    "codeine": ("tramadol", "codeine"),
}


def _drug(name: str, doses: str, frequencies: tuple[str, ...], courses: tuple[str, ...]) -> Drug:
    allergens = tuple(allergen for allergen, drugs in _ALLERGENS.items() if name in drugs)
    return Drug(name=name, doses=tuple(doses.split(", ")), frequencies=frequencies, courses=courses, allergens=allergens)


_TABLE = (
    # heart and vessels
    _drug("lisinopril", "5 mg, 10 mg, 20 mg, 40 mg", DAILY, LONG),
    _drug("amlodipine", "2.5 mg, 5 mg, 10 mg", DAILY, LONG),
    _drug("losartan", "25 mg, 50 mg, 100 mg", DAILY, LONG),
    _drug("hydrochlorothiazide", "12.5 mg, 25 mg", DAILY, LONG),
    _drug("metoprolol", "25 mg, 50 mg, 100 mg", TWICE, LONG),
    _drug("carvedilol", "6.25 mg, 12.5 mg, 25 mg", TWICE, LONG),
    _drug("diltiazem", "120 mg, 180 mg", DAILY, LONG),
    _drug("furosemide", "20 mg, 40 mg", DAILY, LONG),
    _drug("spironolactone", "25 mg, 50 mg", DAILY, LONG),
    _drug("atorvastatin", "10 mg, 20 mg, 40 mg", (*DAILY, *NIGHTLY), LONG),
    _drug("rosuvastatin", "5 mg, 10 mg, 20 mg", DAILY, LONG),
    _drug("simvastatin", "20 mg, 40 mg", NIGHTLY, LONG),
    _drug("ezetimibe", "10 mg", DAILY, LONG),
    _drug("aspirin", "81 mg, 325 mg", DAILY, LONG),
    _drug("clopidogrel", "75 mg", DAILY, LONG),
    _drug("apixaban", "2.5 mg, 5 mg", TWICE, LONG),
    _drug("rivaroxaban", "15 mg, 20 mg", DAILY, LONG),
    _drug("warfarin", "2 mg, 5 mg", NIGHTLY, LONG),
    _drug("nitroglycerin", "0.4 mg", NEEDED, LONG),
    _drug("isosorbide mononitrate", "30 mg, 60 mg", DAILY, LONG),
    _drug("cilostazol", "100 mg", TWICE, LONG),
    # sugar, thyroid, weight, bones
    _drug("metformin", "500 mg, 850 mg, 1000 mg", TWICE, LONG),
    _drug("glipizide", "5 mg, 10 mg", DAILY, LONG),
    _drug("empagliflozin", "10 mg, 25 mg", DAILY, LONG),
    _drug("sitagliptin", "50 mg, 100 mg", DAILY, LONG),
    _drug("insulin glargine", "10 units, 16 units, 20 units", NIGHTLY, LONG),
    _drug("insulin lispro", "4 units, 6 units, 8 units", THRICE, LONG),
    _drug("levothyroxine", "25 mcg, 50 mcg, 75 mcg, 100 mcg", DAILY, LONG),
    _drug("methimazole", "5 mg, 10 mg, 20 mg", DAILY, LONG),
    _drug("propranolol", "10 mg, 20 mg, 40 mg", TWICE, LONG),
    _drug("orlistat", "120 mg", THRICE, LONG),
    _drug("semaglutide", "0.25 mg, 0.5 mg", WEEKLY, LONG),
    _drug("alendronate", "70 mg", WEEKLY, LONG),
    _drug("risedronate", "35 mg", WEEKLY, LONG),
    _drug("vitamin D", "1000 units, 2000 units", DAILY, LONG),
    _drug("vitamin B12", "1000 mcg", DAILY, LONG),
    _drug("ferrous sulfate", "325 mg", DAILY, LONG),
    _drug("folic acid", "1 mg, 400 mcg", DAILY, LONG),
    # lungs, nose, allergy
    _drug("albuterol", "90 mcg, 180 mcg", NEEDED, LONG),
    _drug("fluticasone", "50 mcg, 110 mcg", TWICE, LONG),
    _drug("budesonide", "180 mcg, 360 mcg", TWICE, LONG),
    _drug("tiotropium", "18 mcg", DAILY, LONG),
    _drug("montelukast", "10 mg", NIGHTLY, LONG),
    _drug("prednisone", "10 mg, 20 mg, 40 mg", DAILY, SHORT),
    _drug("cetirizine", "10 mg", DAILY, WEEKS),
    _drug("loratadine", "10 mg", DAILY, WEEKS),
    _drug("fexofenadine", "180 mg", DAILY, WEEKS),
    _drug("diphenhydramine", "25 mg, 50 mg", NIGHTLY, SHORT),
    _drug("epinephrine", "0.3 mg", ("as needed",), LONG),
    _drug("benzonatate", "100 mg, 200 mg", THRICE, SHORT),
    _drug("guaifenesin", "400 mg, 600 mg", TWICE, SHORT),
    _drug("pseudoephedrine", "60 mg", FOUR, SHORT),
    # infections
    _drug("amoxicillin", "500 mg, 875 mg", (*TWICE, *THRICE), SHORT),
    _drug("amoxicillin-clavulanate", "875 mg", TWICE, SHORT),
    _drug("penicillin V", "500 mg", TWICE, ("10 days",)),
    _drug("dicloxacillin", "500 mg", FOUR, SHORT),
    _drug("azithromycin", "250 mg, 500 mg", DAILY, ("3 days", "5 days")),
    _drug("doxycycline", "100 mg", TWICE, ("7 days", "10 days", "14 days", "21 days")),
    _drug("cephalexin", "250 mg, 500 mg", FOUR, SHORT),
    _drug("cefuroxime", "250 mg, 500 mg", TWICE, SHORT),
    _drug("levofloxacin", "500 mg, 750 mg", DAILY, SHORT),
    _drug("ciprofloxacin", "250 mg, 500 mg", TWICE, SHORT),
    _drug("nitrofurantoin", "100 mg", TWICE, ("5 days", "7 days")),
    _drug("trimethoprim-sulfamethoxazole", "160 mg, 800 mg", TWICE, ("3 days", "5 days", "7 days")),
    _drug("metronidazole", "250 mg, 500 mg", (*TWICE, *THRICE), SHORT),
    _drug("clindamycin", "150 mg, 300 mg", FOUR, SHORT),
    _drug("mupirocin", "2%", THRICE, SHORT),
    _drug("erythromycin ointment", "0.5%", FOUR, SHORT),
    _drug("ofloxacin drops", "0.3%", FOUR, SHORT),
    _drug("cefixime", "400 mg", DAILY, SHORT),
    _drug("oseltamivir", "75 mg", TWICE, ("5 days",)),
    _drug("valacyclovir", "500 mg, 1000 mg", (*TWICE, *THRICE), SHORT),
    _drug("acyclovir", "400 mg, 800 mg", THRICE, SHORT),
    _drug("fluconazole", "100 mg, 150 mg, 200 mg", DAILY, SHORT),
    _drug("clotrimazole", "1%", TWICE, WEEKS),
    _drug("terbinafine", "1%, 250 mg", DAILY, WEEKS),
    _drug("nystatin", "500000 units", FOUR, SHORT),
    _drug("permethrin", "5%", NIGHTLY, ONCE),
    _drug("ivermectin", "3 mg, 12 mg", DAILY, ONCE),
    _drug("isoniazid", "300 mg", DAILY, ("six months", "nine months")),
    _drug("rifampin", "600 mg", DAILY, ("four months", "six months")),
    _drug("atovaquone-proguanil", "250 mg", DAILY, WEEKS),
    _drug("tenofovir", "300 mg", DAILY, LONG),
    _drug("entecavir", "0.5 mg", DAILY, LONG),
    _drug("sofosbuvir-velpatasvir", "400 mg", DAILY, ("12 weeks",)),
    _drug("dolutegravir", "50 mg", DAILY, LONG),
    # nerves and mind
    _drug("sumatriptan", "50 mg, 100 mg", NEEDED, LONG),
    _drug("topiramate", "25 mg, 50 mg", TWICE, LONG),
    _drug("levetiracetam", "500 mg, 750 mg", TWICE, LONG),
    _drug("lamotrigine", "25 mg, 100 mg", DAILY, LONG),
    _drug("carbidopa-levodopa", "25 mg, 100 mg", THRICE, LONG),
    _drug("ropinirole", "0.25 mg, 0.5 mg", NIGHTLY, LONG),
    _drug("dimethyl fumarate", "120 mg, 240 mg", TWICE, LONG),
    _drug("baclofen", "5 mg, 10 mg", THRICE, WEEKS),
    _drug("gabapentin", "100 mg, 300 mg, 600 mg", THRICE, LONG),
    _drug("pregabalin", "75 mg, 150 mg", TWICE, LONG),
    _drug("duloxetine", "30 mg, 60 mg", DAILY, LONG),
    _drug("amitriptyline", "10 mg, 25 mg", NIGHTLY, LONG),
    _drug("sertraline", "25 mg, 50 mg, 100 mg", DAILY, LONG),
    _drug("escitalopram", "5 mg, 10 mg, 20 mg", DAILY, LONG),
    _drug("fluoxetine", "10 mg, 20 mg", DAILY, LONG),
    _drug("bupropion", "150 mg, 300 mg", DAILY, LONG),
    _drug("venlafaxine", "37.5 mg, 75 mg", DAILY, LONG),
    _drug("buspirone", "5 mg, 10 mg", TWICE, LONG),
    _drug("hydroxyzine", "25 mg, 50 mg", NEEDED, WEEKS),
    _drug("trazodone", "50 mg, 100 mg", NIGHTLY, WEEKS),
    _drug("melatonin", "3 mg, 5 mg", NIGHTLY, WEEKS),
    _drug("zolpidem", "5 mg, 10 mg", NIGHTLY, SHORT),
    _drug("lithium", "300 mg", TWICE, LONG),
    _drug("quetiapine", "25 mg, 50 mg, 100 mg", NIGHTLY, LONG),
    _drug("methylphenidate", "10 mg, 18 mg, 36 mg", DAILY, LONG),
    _drug("atomoxetine", "40 mg, 80 mg", DAILY, LONG),
    _drug("prazosin", "1 mg, 2 mg", NIGHTLY, LONG),
    _drug("naltrexone", "50 mg", DAILY, LONG),
    _drug("acamprosate", "666 mg", THRICE, LONG),
    _drug("varenicline", "0.5 mg, 1 mg", TWICE, ("12 weeks",)),
    _drug("nicotine patch", "14 mg, 21 mg", DAILY, ("six weeks", "eight weeks")),
    _drug("buprenorphine", "4 mg, 8 mg", DAILY, LONG),
    _drug("meclizine", "12.5 mg, 25 mg", THRICE, SHORT),
    _drug("betahistine", "16 mg, 24 mg", TWICE, WEEKS),
    # pain, joints, immune system
    _drug("ibuprofen", "400 mg, 600 mg", THRICE, SHORT),
    _drug("naproxen", "250 mg, 500 mg", TWICE, SHORT),
    _drug("meloxicam", "7.5 mg, 15 mg", DAILY, WEEKS),
    _drug("indomethacin", "25 mg, 50 mg", THRICE, SHORT),
    _drug("celecoxib", "100 mg, 200 mg", TWICE, WEEKS),
    _drug("diclofenac", "50 mg, 75 mg", TWICE, SHORT),
    _drug("acetaminophen", "500 mg, 650 mg, 1000 mg", (*FOUR, *NEEDED), SHORT),
    _drug("cyclobenzaprine", "5 mg, 10 mg", NIGHTLY, SHORT),
    _drug("tramadol", "50 mg", NEEDED, SHORT),
    _drug("colchicine", "0.6 mg", TWICE, SHORT),
    _drug("allopurinol", "100 mg, 300 mg", DAILY, LONG),
    _drug("methotrexate", "7.5 mg, 15 mg", WEEKLY, LONG),
    _drug("hydroxychloroquine", "200 mg, 400 mg", DAILY, LONG),
    _drug("sulfasalazine", "500 mg, 1000 mg", TWICE, LONG),
    _drug("azathioprine", "50 mg, 100 mg", DAILY, LONG),
    # stomach and bowel
    _drug("omeprazole", "20 mg, 40 mg", DAILY, WEEKS),
    _drug("pantoprazole", "20 mg, 40 mg", DAILY, WEEKS),
    _drug("famotidine", "20 mg, 40 mg", (*TWICE, *NIGHTLY), WEEKS),
    _drug("sucralfate", "1 g", FOUR, WEEKS),
    _drug("ondansetron", "4 mg, 8 mg", THRICE, ("3 days", "5 days")),
    _drug("loperamide", "2 mg", NEEDED, ("2 days", "3 days")),
    _drug("dicyclomine", "10 mg, 20 mg", FOUR, WEEKS),
    _drug("mesalamine", "800 mg, 1200 mg", TWICE, LONG),
    _drug("polyethylene glycol", "17 g", DAILY, WEEKS),
    _drug("docusate", "100 mg", TWICE, WEEKS),
    _drug("psyllium", "3 g, 5 g", DAILY, WEEKS),
    _drug("ursodiol", "300 mg, 500 mg", TWICE, LONG),
    _drug("vitamin E", "400 units", DAILY, LONG),
    # kidneys, bladder, hormones
    _drug("tamsulosin", "0.4 mg", DAILY, LONG),
    _drug("finasteride", "5 mg", DAILY, LONG),
    _drug("oxybutynin", "5 mg, 10 mg", DAILY, LONG),
    _drug("mirabegron", "25 mg, 50 mg", DAILY, LONG),
    _drug("sildenafil", "25 mg, 50 mg", ("as needed",), LONG),
    _drug("tadalafil", "5 mg, 10 mg", ("as needed", *DAILY), LONG),
    _drug("estradiol", "0.5 mg, 1 mg", DAILY, LONG),
    _drug("norethindrone", "0.35 mg, 5 mg", DAILY, LONG),
    _drug("medroxyprogesterone", "5 mg, 10 mg", DAILY, SHORT),
    _drug("levonorgestrel", "0.15 mg", DAILY, LONG),
    _drug("tranexamic acid", "1300 mg", THRICE, ("5 days",)),
    # skin and eyes
    _drug("hydrocortisone cream", "1%, 2.5%", TWICE, ("7 days", "two weeks")),
    _drug("triamcinolone cream", "0.1%", TWICE, ("7 days", "two weeks")),
    _drug("calcipotriene", "0.005%", TWICE, WEEKS),
    _drug("benzoyl peroxide", "2.5%, 5%", DAILY, WEEKS),
    _drug("tretinoin", "0.025%, 0.05%", NIGHTLY, LONG),
    _drug("azelaic acid", "15%", TWICE, WEEKS),
    _drug("latanoprost", "0.005%", NIGHTLY, LONG),
    _drug("timolol drops", "0.25%, 0.5%", TWICE, LONG),
    _drug("cyclosporine drops", "0.05%", TWICE, LONG),
)

DRUGS: dict[str, Drug] = {drug.name: drug for drug in _TABLE}
