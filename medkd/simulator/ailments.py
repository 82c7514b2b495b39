"""What brings patients to the clinic: for each topic the symptoms people report and the medicines that treat it.

A topic that is not listed is still seen: `ailment_of` gives it common complaints and simple medicines, and the topic's own
words as the diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Ailment:
    """One reason for a visit. `course` tells how long people wait before they come: days, or months and years."""

    diagnosis: str
    symptoms: tuple[str, ...]
    drugs: tuple[str, ...]
    course: Literal["acute", "chronic"]
    sex: Literal["male", "female"] | None = None
    """Set where only one sex is seen with it."""
    ages: tuple[int, int] = (0, 120)
    """Youngest and oldest patient it is plausible for."""


_Sex = Literal["male", "female"] | None


def _ailment(
    course: Literal["acute", "chronic"],
    symptoms: str,
    drugs: str,
    diagnosis: str = "",
    sex: _Sex = None,
    ages: tuple[int, int] = (0, 120),
) -> Ailment:
    return Ailment(
        diagnosis=diagnosis,
        symptoms=tuple(symptoms.split(", ")),
        drugs=tuple(drugs.split(", ")),
        course=course,
        sex=sex,
        ages=ages,
    )


def _acute(symptoms: str, drugs: str, diagnosis: str = "", sex: _Sex = None) -> Ailment:
    return _ailment("acute", symptoms, drugs, diagnosis, sex)


def _chronic(symptoms: str, drugs: str, diagnosis: str = "", sex: _Sex = None) -> Ailment:
    return _ailment("chronic", symptoms, drugs, diagnosis, sex)


_LOW_MOOD = "low mood, poor sleep, fatigue, poor appetite, trouble concentrating"
_WORRY = "palpitations, poor sleep, sweating, trouble concentrating, chest tightness"
_FLU = "fever, cough, body aches, sore throat, chills, headache"
_JOINT = "joint pain, joint swelling, morning stiffness, fatigue"
_BACK = "back pain, muscle spasms, stiffness, leg pain"
_STRAIN = "swelling, bruising, stiffness, weakness"
_LEGS = "leg pain, leg swelling, leg cramps, heavy legs"
_TIRED = "fatigue, dizziness, weakness, shortness of breath, cold hands"
_SUGAR = "increased thirst, frequent urination, fatigue, blurred vision, weight loss"
_HEART = "chest pain, shortness of breath, palpitations, fatigue, ankle swelling"
_BELLY = "stomach pain, bloating, diarrhea, nausea, weight loss"
_ACID = "heartburn, stomach pain, nausea, bloating, sour taste"
_URINE = "burning urination, frequent urination, pelvic pain, fever"
_ITCH = "itching, rash, redness, dry skin"
_EYE = "red eyes, itchy eyes, eye discharge, blurred vision"

AILMENTS: dict[str, Ailment] = {
    # heart and vessels
    "hypertension": _chronic(
        "headache, dizziness, blurred vision, nosebleeds", "lisinopril, amlodipine, losartan, hydrochlorothiazide"
    ),
    "coronary artery disease": _chronic(_HEART, "aspirin, atorvastatin, metoprolol"),
    "angina": _chronic(_HEART, "nitroglycerin, isosorbide mononitrate, metoprolol"),
    "atrial fibrillation": _chronic("palpitations, dizziness, fatigue, shortness of breath", "apixaban, metoprolol, diltiazem"),
    "heart failure": _chronic("shortness of breath, ankle swelling, fatigue, cough", "furosemide, carvedilol, spironolactone"),
    "high cholesterol": _chronic("fatigue, leg cramps", "atorvastatin, rosuvastatin, simvastatin, ezetimibe"),
    "deep vein thrombosis": _acute("leg pain, leg swelling, redness, warmth", "apixaban, rivaroxaban, warfarin"),
    "varicose veins": _chronic(_LEGS, "ibuprofen, acetaminophen"),
    "peripheral artery disease": _chronic("leg pain, leg cramps, cold feet, numbness", "cilostazol, clopidogrel, atorvastatin"),
    "stroke follow-up": _chronic("weakness, numbness, dizziness, slurred speech", "clopidogrel, aspirin, atorvastatin", "stroke"),
    "anemia": _chronic(_TIRED, "ferrous sulfate, folic acid, vitamin B12"),
    "iron deficiency": _chronic(_TIRED, "ferrous sulfate"),
    # sugar, thyroid, weight, bones, vitamins
    "type 2 diabetes": _chronic(_SUGAR, "metformin, glipizide, empagliflozin, sitagliptin"),
    "type 1 diabetes": _chronic(_SUGAR, "insulin glargine, insulin lispro"),
    "gestational diabetes": _ailment("acute", _SUGAR, "metformin, insulin glargine", sex="female", ages=(18, 45)),
    "hypothyroidism": _chronic("fatigue, weight gain, constipation, dry skin, hair loss", "levothyroxine"),
    "hyperthyroidism": _chronic("palpitations, weight loss, sweating, tremor", "methimazole, propranolol"),
    "obesity": _chronic("weight gain, fatigue, knee pain, shortness of breath", "orlistat, semaglutide"),
    "osteoporosis": _chronic("back pain, stiffness, weakness", "alendronate, risedronate, vitamin D"),
    "vitamin D deficiency": _chronic("fatigue, bone pain, weakness, low mood", "vitamin D"),
    "vitamin B12 deficiency": _chronic("fatigue, numbness, tingling, memory loss", "vitamin B12"),
    # lungs, nose, throat, ears
    "asthma": _chronic(
        "wheezing, cough, shortness of breath, chest tightness", "albuterol, fluticasone, budesonide, montelukast"
    ),
    "COPD": _chronic("cough, shortness of breath, wheezing, fatigue", "tiotropium, albuterol, budesonide"),
    "pneumonia": _acute(
        "fever, cough, chills, chest pain, shortness of breath", "azithromycin, levofloxacin, amoxicillin, doxycycline"
    ),
    "bronchitis": _acute("cough, wheezing, chest tightness, fatigue", "benzonatate, guaifenesin, albuterol"),
    "influenza": _acute(_FLU, "oseltamivir, acetaminophen, ibuprofen"),
    "common cold": _acute("runny nose, sore throat, sneezing, cough, stuffy nose", "guaifenesin, pseudoephedrine, acetaminophen"),
    "sinusitis": _acute("facial pain, stuffy nose, headache, runny nose", "amoxicillin-clavulanate, doxycycline, fluticasone"),
    "strep throat": _acute("sore throat, fever, trouble swallowing, swollen glands", "amoxicillin, penicillin V, azithromycin"),
    "tonsillitis": _acute("sore throat, fever, trouble swallowing, swollen glands", "amoxicillin, cephalexin, ibuprofen"),
    "ear infection": _acute("ear pain, fever, hearing loss, ear discharge", "amoxicillin, cefuroxime, ofloxacin drops"),
    "allergic rhinitis": _chronic("runny nose, sneezing, itchy eyes, stuffy nose", "cetirizine, loratadine, fluticasone"),
    "tuberculosis": _chronic("cough, night sweats, weight loss, fever", "isoniazid, rifampin"),
    "sleep apnea": _chronic("snoring, daytime sleepiness, morning headaches, fatigue", "fluticasone, montelukast"),
    "vertigo": _acute("dizziness, nausea, loss of balance, vomiting", "meclizine, betahistine"),
    "tinnitus": _chronic("ringing in the ears, hearing loss, poor sleep", "betahistine, amitriptyline"),
    # nerves and mind
    "migraine": _chronic("headache, nausea, light sensitivity, blurred vision", "sumatriptan, topiramate, propranolol"),
    "tension headache": _acute("headache, neck pain, poor sleep", "ibuprofen, acetaminophen, naproxen"),
    "epilepsy": _chronic("seizures, confusion, memory loss, fatigue", "levetiracetam, lamotrigine, topiramate"),
    "Parkinson's disease": _chronic("tremor, stiffness, slow movement, loss of balance", "carbidopa-levodopa, ropinirole"),
    "multiple sclerosis": _chronic("numbness, blurred vision, weakness, fatigue", "dimethyl fumarate, baclofen"),
    "peripheral neuropathy": _chronic("numbness, tingling, burning feet, weakness", "gabapentin, pregabalin, duloxetine"),
    "carpal tunnel syndrome": _chronic("hand numbness, wrist pain, tingling, weak grip", "naproxen, ibuprofen, prednisone"),
    "restless legs syndrome": _chronic(
        "leg cramps, poor sleep, tingling, daytime sleepiness", "ropinirole, gabapentin, pregabalin"
    ),
    "depression": _chronic(_LOW_MOOD, "sertraline, escitalopram, fluoxetine, bupropion"),
    "generalized anxiety": _chronic(_WORRY, "escitalopram, buspirone, venlafaxine, sertraline"),
    "panic disorder": _chronic(_WORRY, "sertraline, hydroxyzine, escitalopram"),
    "insomnia": _chronic("poor sleep, daytime sleepiness, irritability, fatigue", "trazodone, melatonin, zolpidem"),
    "bipolar disorder": _chronic("mood swings, poor sleep, racing thoughts, low mood", "lithium, quetiapine, lamotrigine"),
    "ADHD": _chronic("trouble concentrating, restlessness, forgetfulness", "methylphenidate, atomoxetine, bupropion"),
    "PTSD": _chronic("nightmares, poor sleep, irritability, low mood", "sertraline, prazosin, venlafaxine"),
    "alcohol use disorder": _chronic("tremor, sweating, poor sleep, low mood", "naltrexone, acamprosate"),
    "smoking cessation": _chronic(
        "cough, cravings, irritability, shortness of breath", "varenicline, nicotine patch, bupropion", "nicotine dependence"
    ),
    "opioid use disorder": _chronic("cravings, sweating, poor sleep, nausea", "buprenorphine, naltrexone"),
    "chronic fatigue": _chronic("fatigue, poor sleep, muscle aches, trouble concentrating", "amitriptyline, vitamin D"),
    # bones, joints, muscles
    "sciatica": _acute("back pain, leg pain, numbness, tingling", "naproxen, gabapentin, cyclobenzaprine"),
    "low back pain": _acute(_BACK, "ibuprofen, naproxen, cyclobenzaprine", "muscle strain"),
    "neck pain": _acute(
        "stiffness, headache, muscle spasms, shoulder pain", "naproxen, cyclobenzaprine, ibuprofen", "neck strain"
    ),
    "osteoarthritis": _chronic("knee pain, hip pain, morning stiffness, joint swelling", "meloxicam, acetaminophen, celecoxib"),
    "rheumatoid arthritis": _chronic(_JOINT, "methotrexate, hydroxychloroquine, prednisone"),
    "gout": _acute("toe pain, joint swelling, redness, warmth", "colchicine, indomethacin, allopurinol"),
    "fibromyalgia": _chronic("muscle aches, fatigue, poor sleep, stiffness", "duloxetine, pregabalin, amitriptyline"),
    "tendonitis": _acute("elbow pain, wrist pain, stiffness, swelling", "naproxen, ibuprofen, diclofenac"),
    "rotator cuff injury": _acute("shoulder pain, weakness, stiffness, poor sleep", "naproxen, meloxicam, ibuprofen"),
    "ankle sprain": _acute("ankle pain, swelling, bruising, stiffness", "ibuprofen, naproxen, acetaminophen"),
    "plantar fasciitis": _chronic("heel pain, foot pain, morning stiffness", "ibuprofen, naproxen, meloxicam"),
    "lupus": _chronic("joint pain, rash, fatigue, fever", "hydroxychloroquine, prednisone, azathioprine"),
    # women's and men's health, kidneys and bladder
    "polycystic ovary syndrome": _ailment(
        "chronic", "irregular periods, weight gain, acne, hair loss", "metformin, spironolactone", sex="female", ages=(16, 45)
    ),
    "menopause": _ailment(
        "chronic", "hot flashes, night sweats, poor sleep, mood swings", "estradiol, venlafaxine", sex="female", ages=(45, 60)
    ),
    "endometriosis": _ailment(
        "chronic", "pelvic pain, painful periods, fatigue", "norethindrone, naproxen", sex="female", ages=(16, 48)
    ),
    "heavy menstrual bleeding": _ailment(
        "chronic", "heavy periods, fatigue, pelvic pain, dizziness", "tranexamic acid, norethindrone", sex="female", ages=(15, 52)
    ),
    "contraception counseling": _ailment(
        "chronic", "irregular periods, painful periods", "levonorgestrel, norethindrone", sex="female", ages=(16, 48)
    ),
    "prenatal visit": _ailment(
        "acute", "nausea, fatigue, heartburn, back pain", "folic acid, ferrous sulfate", "pregnancy", sex="female", ages=(18, 45)
    ),
    "bacterial vaginosis": _acute("vaginal discharge, fishy odor, vaginal itching", "metronidazole, clindamycin", sex="female"),
    "vaginal yeast infection": _acute("vaginal itching, vaginal discharge, redness", "fluconazole, clotrimazole", sex="female"),
    "urinary tract infection": _acute(_URINE, "nitrofurantoin, trimethoprim-sulfamethoxazole, ciprofloxacin"),
    "kidney stones": _acute("flank pain, blood in urine, nausea, vomiting", "tamsulosin, naproxen, tramadol"),
    "chronic kidney disease": _chronic("fatigue, ankle swelling, poor appetite, itching", "lisinopril, losartan, furosemide"),
    "overactive bladder": _chronic("frequent urination, urgency, leaking urine, poor sleep", "oxybutynin, mirabegron"),
    "benign prostatic hyperplasia": _ailment(
        "chronic", "weak urine stream, frequent urination, urgency", "tamsulosin, finasteride", sex="male", ages=(50, 95)
    ),
    "erectile dysfunction": _ailment(
        "chronic", "erection problems, low libido, low mood", "sildenafil, tadalafil", sex="male", ages=(25, 90)
    ),
    "chlamydia": _acute(_URINE, "doxycycline, azithromycin"),
    "gonorrhea": _acute(_URINE, "cefixime, azithromycin"),
    "genital herpes": _acute("painful blisters, itching, burning urination", "valacyclovir, acyclovir"),
    "HIV follow-up": _chronic("fatigue, diarrhea, weight loss, night sweats", "dolutegravir, tenofovir", "HIV"),
    # stomach, bowel, liver
    "GERD": _chronic(_ACID, "omeprazole, pantoprazole, famotidine"),
    "peptic ulcer": _chronic(_ACID, "omeprazole, sucralfate, pantoprazole"),
    "gastritis": _acute(_ACID, "omeprazole, famotidine, sucralfate"),
    "irritable bowel syndrome": _chronic("stomach pain, bloating, diarrhea, constipation", "dicyclomine, psyllium, loperamide"),
    "Crohn's disease": _chronic(_BELLY, "azathioprine, prednisone, budesonide"),
    "ulcerative colitis": _chronic("bloody stools, diarrhea, stomach pain, fatigue", "mesalamine, sulfasalazine, prednisone"),
    "celiac disease": _chronic(_BELLY, "ferrous sulfate, vitamin D, folic acid"),
    "constipation": _acute("hard stools, bloating, stomach pain", "polyethylene glycol, docusate, psyllium"),
    "gastroenteritis": _acute("diarrhea, vomiting, nausea, stomach pain, fever", "ondansetron, loperamide"),
    "hemorrhoids": _acute("rectal bleeding, itching, rectal pain", "hydrocortisone cream, psyllium, docusate"),
    "diverticulitis": _acute(
        "stomach pain, fever, constipation, nausea", "ciprofloxacin, metronidazole, amoxicillin-clavulanate"
    ),
    "gallstones": _acute("stomach pain, nausea, vomiting, bloating", "ursodiol, ibuprofen"),
    "hepatitis B": _chronic("fatigue, poor appetite, dark urine, jaundice", "tenofovir, entecavir"),
    "hepatitis C": _chronic("fatigue, poor appetite, dark urine, itching", "sofosbuvir-velpatasvir"),
    "fatty liver disease": _chronic("fatigue, bloating, weight gain", "vitamin E, atorvastatin"),
    # skin, eyes, allergies, infections
    "eczema": _chronic(_ITCH, "hydrocortisone cream, triamcinolone cream, cetirizine"),
    "psoriasis": _chronic("scaly patches, itching, dry skin, joint pain", "calcipotriene, triamcinolone cream, methotrexate"),
    "acne": _chronic("pimples, oily skin, redness", "benzoyl peroxide, tretinoin, doxycycline"),
    "rosacea": _chronic("redness, flushing, pimples, dry skin", "azelaic acid, doxycycline, metronidazole"),
    "shingles": _acute("painful blisters, rash, burning pain, itching", "valacyclovir, acyclovir, gabapentin"),
    "cellulitis": _acute("redness, warmth, swelling, fever", "cephalexin, clindamycin, dicloxacillin"),
    "impetigo": _acute("crusty sores, itching, redness", "mupirocin, cephalexin"),
    "ringworm": _acute("itching, rash, scaly patches", "clotrimazole, terbinafine"),
    "scabies": _acute("itching, rash, poor sleep", "permethrin, ivermectin"),
    "hives": _acute("itching, rash, swelling", "cetirizine, loratadine, diphenhydramine"),
    "contact dermatitis": _acute(_ITCH, "hydrocortisone cream, triamcinolone cream, prednisone"),
    "conjunctivitis": _acute(_EYE, "erythromycin ointment, ofloxacin drops"),
    "dry eye": _chronic("itchy eyes, burning eyes, blurred vision, red eyes", "cyclosporine drops"),
    "glaucoma": _chronic("blurred vision, eye pain, headache, halos", "latanoprost, timolol drops"),
    "blepharitis": _chronic("itchy eyes, crusty eyelids, red eyes, burning eyes", "erythromycin ointment, doxycycline"),
    "Lyme disease": _acute("rash, fever, joint pain, fatigue", "doxycycline, amoxicillin, cefuroxime"),
    "mononucleosis": _acute("fatigue, sore throat, swollen glands, fever", "ibuprofen, acetaminophen"),
    "cold sores": _acute("painful blisters, tingling, burning pain", "valacyclovir, acyclovir"),
    "oral thrush": _acute("white patches, mouth pain, trouble swallowing", "nystatin, fluconazole"),
    "malaria prophylaxis": _acute("nausea, headache, fatigue", "atovaquone-proguanil, doxycycline"),
    "anaphylaxis follow-up": _acute("hives, swelling, shortness of breath, dizziness", "epinephrine, prednisone", "anaphylaxis"),
    "food allergy": _chronic("hives, itching, swelling, stomach pain", "epinephrine, cetirizine"),
}

# What an unlisted topic gets: complaints and medicines that go with nearly anything.
_COMMON = _acute("fatigue, headache, fever, nausea, poor sleep, dizziness", "acetaminophen, ibuprofen, naproxen")


def ailment_of(topic: str) -> Ailment:
    """The ailment seen under `topic`, any word or phrase, with a diagnosis: the topic's own words unless the table says other."""
    listed = AILMENTS.get(topic, _COMMON)
    return replace(listed, diagnosis=listed.diagnosis or topic)
