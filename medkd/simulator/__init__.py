"""An honest stand-in teacher over HTTP, with a clinic of its own. No other room knows of it.

What patients bring: `people`, `ailments`, `formulary` → drawn into the truth of one visit by `encounters` → spoken by
`dialogue` in the words of `phrases`. What readers find: `utterances`, `lexicon`, `cues` → `reader`. `clinic` answers one
question with either. Around it: `openai_protocol`, `anthropic_protocol` (shapes), `frontdesk` (one request from key to
reply), `faults` (which strikes when) with `refusals` and `spoilers`, `limits`, `ledger`, `gold`, `wire` (HTTP), `server`.
"""
