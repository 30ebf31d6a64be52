"""Background responses, as clients deal with them: submitted, viewed, waited for, followed and cancelled."""
