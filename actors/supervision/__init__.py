"""Who is started again with whom. The restart plan is pure, rule by rule OTP's; the supervisor carries it out on either Thespian
base. Knows no role, children are specs: imports `messages` and `runtime`."""
