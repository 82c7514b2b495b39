"""Everything the clinic's doctor and patients can say, as templates with named gaps.

The first of several answers is the one that brief patients prefer.
"""

from __future__ import annotations

from dataclasses import dataclass

GREETINGS = ("Good morning", "Hello", "Hi", "Good afternoon", "Welcome")
NAME_GIVEN = ("I'm {name}.", "My name is {name}.", "It's {name}.")
AGE_GIVEN = ("I'm {age}.", "I'm {age} years old.", "I am {age} years old.")
COMPLAINT_QUESTIONS = (
    "What brings you in today?",
    "What can I do for you?",
    "How can I help you today?",
    "So what is troubling you?",
    "What seems to be the problem?",
)
COMPLAINTS = (
    "I have {symptoms}.",
    "I've been having {symptoms}.",
    "I keep getting {symptoms}.",
    "It's this {symptoms}.",
    "I've noticed {symptoms} lately.",
)
COMPLAINTS_WITH_DURATION = (
    "I've had {symptoms} for {duration}.",
    "I have {symptoms}. It started {duration} ago.",
    "I've been having {symptoms} for {duration} now.",
    "For {duration} I've had {symptoms}.",
    "I came because of {symptoms}, and it's been going on for {duration}.",
)
DURATION_QUESTIONS = ("How long has this been going on?", "When did this start?", "Since when?", "How long have you had this?")
DURATION_ANSWERS = ("For {duration}.", "It started {duration} ago.", "It's been {duration} now.", "I'd say for {duration}.")


@dataclass(frozen=True, kw_only=True)
class HistoryTalk:
    """How one part of the history is asked for, told, denied, and mentioned unasked."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    denials: tuple[str, ...]
    asides: tuple[str, ...]


HISTORY: dict[str, HistoryTalk] = {
    "conditions": HistoryTalk(
        questions=(
            "Do you have any other medical conditions?",
            "Any past medical history I should know about?",
            "Have you been diagnosed with anything else?",
            "Do you have any chronic illnesses?",
        ),
        answers=(
            "Yes, {facts}.",
            "I have {facts}.",
            "I was diagnosed with {facts} some time ago.",
            "Just {facts}.",
            "I have a history of {facts}.",
        ),
        denials=("No, nothing else.", "No, I'm otherwise healthy.", "No other conditions.", "None, I've always been healthy."),
        asides=("I also have {facts}.", "You should know that I have {facts}.", "I have a history of {facts} too."),
    ),
    "medications": HistoryTalk(
        questions=(
            "Are you taking any medications?",
            "What medicines do you take at the moment?",
            "Do you take any regular medications?",
            "Which medicines are you on right now?",
        ),
        answers=(
            "Only {facts}.",
            "I take {facts}.",
            "I'm on {facts}.",
            "I've been taking {facts} for a while.",
            "Yes, I use {facts}.",
        ),
        denials=("No, none.", "No, I don't take anything.", "I take no medicines.", "Nothing at all."),
        asides=("I already take {facts}.", "I'm on {facts}, by the way.", "At home I take {facts}."),
    ),
    "allergies": HistoryTalk(
        questions=(
            "Do you have any allergies?",
            "Are you allergic to anything?",
            "Any allergies to medicines or food?",
            "Any drug allergies?",
        ),
        answers=(
            "Yes, {facts}.",
            "I'm allergic to {facts}.",
            "Just {facts}.",
            "I have an allergy to {facts}.",
            "I react badly to {facts}.",
        ),
        denials=("No, none.", "No allergies.", "None that I know of.", "No known allergies."),
        asides=("And I'm allergic to {facts}.", "I have an allergy to {facts}, just so you know."),
    ),
    "family_history": HistoryTalk(
        questions=(
            "Does anything run in your family?",
            "Are there any illnesses in your family?",
            "What about your family history?",
            "Has anyone in your family been seriously ill?",
        ),
        answers=("Yes, {facts}.", "{Facts}.", "Well, {facts}.", "I think {facts}."),
        denials=("No, nothing.", "No, everyone in my family is healthy.", "Nothing runs in my family.", "Not that I know of."),
        asides=("{Facts}, if that matters.", "By the way, {facts}."),
    ),
    "occupation": HistoryTalk(
        questions=("What do you do for work?", "What is your occupation?", "What kind of work do you do?", "And your job?"),
        answers=("I'm {facts}.", "I work as {facts}.", "I've been {facts} for years.", "I'm {facts}, and I like it."),
        denials=(),
        asides=("I work as {facts}.", "I'm {facts}, so I can't stay home for long."),
    ),
}

RELATIVE_HAD = ("my {relative} had {condition}", "my {relative} has {condition}")

DIAGNOSES = (
    "This looks like {diagnosis}.",
    "You have {diagnosis}.",
    "I think this is {diagnosis}.",
    "My diagnosis is {diagnosis}.",
    "Everything points to {diagnosis}.",
    "I'm fairly sure it's {diagnosis}.",
)
NO_DIAGNOSIS = (
    "I'd like to run some tests before I give this a name.",
    "I can't say yet what this is.",
    "Let's wait for the blood work.",
)
PRESCRIBING = (
    "Take {order}.",
    "I'm starting you on {order}.",
    "I'll prescribe {order}.",
    "I want you to take {order}.",
    "Let's start {order}.",
)
PRESCRIBING_MORE = ("Also take {order}.", "I'm adding {order}.", "On top of that, take {order}.")
NO_PRESCRIPTION = (
    "No medicine for now, just rest.",
    "You don't need a prescription today.",
    "Let's hold off on medicines for now.",
)
CONSIDERED = (
    "I thought about {drug}, but I don't want to use it.",
    "We won't use {drug} this time.",
    "I considered {drug}, but decided against it.",
)
REACTIONS = ("Okay.", "I see.", "Oh, I was afraid of that.", "All right.", "Is it serious?")
CLOSINGS = ("Okay, thank you.", "Thank you, doctor.", "All right, I will.", "Got it, thanks.", "Okay, see you next time.")

ABSENT_QUESTIONS = ("Any {first} or {second}?", "Have you had {first} or {second}?", "Did you notice any {first} or {second}?")
ABSENT_ANSWERS = ("No, neither.", "No, none of that.", "No {first} and no {second}.", "I don't have {first} or {second}.")
OUTSIDER_QUESTIONS = ("Is anyone around you sick?", "Do you know anyone else with this?", "Why do you ask?")
OUTSIDER_ANSWERS = ("My {outsider} had {condition} last year.", "My {outsider} has {condition}, but I don't.")

SMALL_TALK: tuple[tuple[str, str], ...] = (
    ("Let me have a look at your", "Sorry, that was my phone. Please go on."),
    ("I'm going to listen to your heart and lungs. Deep breath, please.", "Okay."),
    ("Do you smoke?", "No, I quit a long time ago."),
    ("How much alcohol do you drink?", "A glass of wine on weekends."),
    ("Has anything helped so far?", "Resting helps a little."),
    ("Is it worse at any time of the day?", "Mostly in the evening."),
    ("How are things at home?", "Busy, but fine."),
    ("Are you eating well?", "Yes, mostly."),
    ("Do you get any exercise?", "I walk the dog."),
    ("Let me check your blood pressure. Please hold still.", "Sure, go ahead."),
    ("Did you find the clinic easily?", "Yes, the bus stops right outside."),
    ("One moment, the nurse needs me. Where were we?", "You were asking me questions."),
    ("Could you lie down here, please?", "Like this?"),
    ("Have you traveled recently?", "No, I've been at home."),
)

MOODS: dict[str, tuple[str, ...]] = {
    "calm": ("I'm not too worried.", "No rush."),
    "anxious": ("I'm really worried.", "Is it something bad?", "I can't stop thinking about it."),
    "irritated": ("I waited an hour for this.", "Can we hurry up?", "This is annoying."),
    "tired": ("Sorry, I'm worn out today.", "I just want to lie down."),
    "cheerful": ("Lovely weather, isn't it?", "Well, it could be worse!"),
    "tearful": ("Sorry, I didn't mean to cry.", "It's all a bit much for me."),
    "distracted": ("Sorry, what did you say?", "Hold on, I lost my train of thought."),
    "stoic": ("It's nothing, really.", "I don't like to complain."),
}
ANY_MOOD = ("To be honest, I feel {mood} today.",)

OPENERS: dict[str, tuple[str, ...]] = {
    "worried about details": ("I wrote it down, ", "To be exact, "),
    "precise": ("To be precise, ",),
    "hesitant": ("Um, ", "Well, uh, ", "Let me think, "),
    "formal": ("Certainly, doctor. ", "Good question, doctor. "),
    "chatty": ("You know, ", "Oh, well, "),
}
TANGENTS: dict[str, tuple[str, ...]] = {
    "rambling": (
        "It's been quite a week, with the car breaking down and all.",
        "My neighbor told me to come, she always knows best.",
        "Anyway, where was I?",
        "I would have come sooner, but the garden needed me.",
    ),
    "chatty": ("Your new waiting room is nice.", "I told my dog all about it."),
}
