"""Brand names beside the generic name of the same drug: a record may write either where the conversation says the other.

A short table of drugs that are often prescribed in English-speaking countries; a name that is not in it stands for itself.
"""

from __future__ import annotations

_BRANDS = """
acetaminophen: paracetamol, tylenol, panadol
ibuprofen: advil, motrin, nurofen
naproxen: aleve, naprosyn
aspirin: bayer, ecotrin
albuterol: salbutamol, ventolin, proair, proventil
fluticasone: flonase, flovent
fluticasone salmeterol: advair
budesonide formoterol: symbicort
tiotropium: spiriva
montelukast: singulair
cetirizine: zyrtec
loratadine: claritin
fexofenadine: allegra
diphenhydramine: benadryl
omeprazole: prilosec
esomeprazole: nexium
pantoprazole: protonix
famotidine: pepcid
ondansetron: zofran
metformin: glucophage
glipizide: glucotrol
sitagliptin: januvia
empagliflozin: jardiance
semaglutide: ozempic, wegovy
insulin glargine: lantus, basaglar
insulin lispro: humalog
lisinopril: zestril, prinivil
losartan: cozaar
valsartan: diovan
amlodipine: norvasc
metoprolol: lopressor, toprol
carvedilol: coreg
atenolol: tenormin
furosemide: lasix
hydrochlorothiazide: microzide
spironolactone: aldactone
atorvastatin: lipitor
simvastatin: zocor
rosuvastatin: crestor
pravastatin: pravachol
warfarin: coumadin
apixaban: eliquis
rivaroxaban: xarelto
clopidogrel: plavix
levothyroxine: synthroid, levoxyl
sertraline: zoloft
fluoxetine: prozac
citalopram: celexa
escitalopram: lexapro
bupropion: wellbutrin
venlafaxine: effexor
duloxetine: cymbalta
trazodone: desyrel
alprazolam: xanax
lorazepam: ativan
clonazepam: klonopin
zolpidem: ambien
quetiapine: seroquel
risperidone: risperdal
aripiprazole: abilify
gabapentin: neurontin
pregabalin: lyrica
topiramate: topamax
phenytoin: dilantin
levetiracetam: keppra
sumatriptan: imitrex
oxycodone: oxycontin
hydrocodone acetaminophen: vicodin, norco, lortab
tramadol: ultram
cyclobenzaprine: flexeril
prednisone: deltasone
methylphenidate: ritalin, concerta
amoxicillin: amoxil
amoxicillin clavulanate: augmentin
azithromycin: zithromax
ciprofloxacin: cipro
levofloxacin: levaquin
nitrofurantoin: macrobid
acyclovir: zovirax
valacyclovir: valtrex
fluconazole: diflucan
allopurinol: zyloprim
alendronate: fosamax
sildenafil: viagra
tamsulosin: flomax
finasteride: proscar, propecia
"""

_GROUPS = [
    frozenset([line.split(":")[0].strip(), *(name.strip() for name in line.split(":")[1].split(","))])
    for line in _BRANDS.strip().splitlines()
]
_GROUP_OF = {name: group for group in _GROUPS for name in group}

DRUG_NAMES = frozenset(_GROUP_OF)
"""All names of the table, in lower case."""


def names_of(drug: str) -> frozenset[str]:
    """The drug's other names and itself, in lower case."""
    folded = " ".join(drug.lower().split())
    return _GROUP_OF.get(folded, frozenset()) | {folded}
