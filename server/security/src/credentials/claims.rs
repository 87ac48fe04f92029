//! What a token says, compared with what a definition demands (RFC 7519, section 4.1; RFC 8693, section 4.2).
//!
//! Whoever calls this knows already that the claims are genuine.

use crosstie_model::definition::TokenRules;
use crosstie_model::refusal::RefusalReason;
use serde_json::{Map, Value};

/// Most scopes that are told of one token.
const MAX_SCOPES: usize = 1_000;

/// The demands of one definition.
#[derive(Debug)]
pub(super) struct ClaimRules {
    issuer: Option<String>,
    audience: Vec<String>,
    scopes: Vec<String>,
    claims: Vec<(String, Vec<Value>)>,
    username: Vec<String>,
    skew: i64,
}

/// Whether a token without an end is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// It must have one.
    Always,
    /// Whoever vouches for it knows when it ends.
    Perhaps,
}

/// What a good token says.
#[derive(Debug, PartialEq)]
pub(super) struct Accepted {
    pub(super) username: Option<String>,
    pub(super) scopes: Vec<String>,
    /// When it is no longer taken, in seconds since 1970, the clocks' difference included.
    pub(super) until: Option<i64>,
}

/// Why a genuine token is refused, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) reason: RefusalReason,
    pub(super) username: Option<String>,
}

impl ClaimRules {
    /// `usual` are the claims that may be the user name where the definition does not say, best first.
    pub(super) fn new(rules: &TokenRules, usual: &[&str]) -> Self {
        let values = |wanted: &Value| match wanted {
            Value::Array(several) => several.clone(),
            one => vec![one.clone()],
        };
        let username = match &rules.username_claim {
            Some(claim) => vec![claim.clone()],
            None => usual.iter().map(|claim| (*claim).to_owned()).collect(),
        };
        Self {
            issuer: rules.issuer.clone(),
            audience: rules.audience.clone(),
            scopes: rules.scopes.clone(),
            claims: rules.claims.iter().map(|(name, wanted)| (name.clone(), values(wanted))).collect(),
            username,
            skew: i64::from(rules.clock_skew_s),
        }
    }

    /// Checks the claims of a genuine token at `now`, in seconds since 1970.
    pub(super) fn check(&self, claims: &Map<String, Value>, ends: Ends, now: i64) -> Result<Accepted, Unfit> {
        let named = self.username.iter().find_map(|claim| find(claims, claim)?.as_str());
        let username = named.map(str::to_owned);
        match self.compare(claims, ends, now) {
            Ok((scopes, until)) => Ok(Accepted { username, scopes, until }),
            Err(reason) => Err(Unfit { reason, username }),
        }
    }

    fn compare(
        &self,
        claims: &Map<String, Value>,
        ends: Ends,
        now: i64,
    ) -> Result<(Vec<String>, Option<i64>), RefusalReason> {
        let end = date(claims, "exp")?;
        if end.is_none() && ends == Ends::Always {
            return Err(RefusalReason::Claims);
        }
        let until = end.map(|end| end.saturating_add(self.skew));
        if until.is_some_and(|until| until <= now) {
            return Err(RefusalReason::Expired);
        }
        if date(claims, "nbf")?.is_some_and(|begin| begin.saturating_sub(self.skew) > now) {
            return Err(RefusalReason::NotYetValid);
        }
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(RefusalReason::Issuer);
        }
        self.compare_audience(claims)?;
        for (name, wanted) in &self.claims {
            let said = find(claims, name).ok_or(RefusalReason::Claims)?;
            let fits = match said {
                Value::Array(items) => items.iter().any(|item| wanted.contains(item)),
                one => wanted.contains(one),
            };
            if !fits {
                return Err(RefusalReason::Claims);
            }
        }
        let scopes = scopes_of(claims);
        if !self.scopes.iter().all(|wanted| scopes.contains(wanted)) {
            return Err(RefusalReason::Scope);
        }
        Ok((scopes, until))
    }

    fn compare_audience(&self, claims: &Map<String, Value>) -> Result<(), RefusalReason> {
        let is_ours =
            |said: &Value| said.as_str().is_some_and(|said| self.audience.iter().any(|own| own == said));
        let fits = match claims.get("aud") {
            None => self.audience.is_empty(),
            Some(Value::Array(several)) => several.iter().any(is_ours),
            Some(one) => is_ours(one),
        };
        if fits { Ok(()) } else { Err(RefusalReason::Audience) }
    }
}

/// A claim by its name, or by JSON Pointer.
fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    let Some(path) = name.strip_prefix('/') else { return claims.get(name) };
    let (first, rest) = path.split_once('/').map_or((path, ""), |(first, rest)| (first, rest));
    let value = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    if rest.is_empty() { Some(value) } else { value.pointer(&format!("/{rest}")) }
}

/// A NumericDate (RFC 7519, section 2) in whole seconds.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, RefusalReason> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(seconds) = value.as_i64() {
        return Ok(Some(seconds));
    }
    // Beyond these bounds no date is meant; within them no precision is lost.
    let seconds = value.as_f64().filter(|seconds| seconds.abs() < 9e15);
    let seconds = seconds.ok_or(RefusalReason::Malformed)?;
    format!("{:.0}", seconds.floor()).parse().map(Some).map_err(|_| RefusalReason::Malformed)
}

/// The scopes of a token: `scope` as RFC 8693 has it, or `scp`; a list where issuers write one.
fn scopes_of(claims: &Map<String, Value>) -> Vec<String> {
    let mut scopes = Vec::new();
    for name in ["scope", "scp"] {
        match claims.get(name) {
            Some(Value::String(text)) => {
                scopes.extend(text.split_ascii_whitespace().take(MAX_SCOPES).map(str::to_owned));
            }
            Some(Value::Array(items)) => {
                scopes.extend(items.iter().filter_map(Value::as_str).take(MAX_SCOPES).map(str::to_owned));
            }
            _ => {}
        }
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_000_000;

    fn rules(rules: Value) -> ClaimRules {
        ClaimRules::new(&serde_json::from_value(rules).unwrap(), &["sub"])
    }

    fn check(demands: &Value, claims: &Value) -> Result<Accepted, Unfit> {
        let mut all = json!({"sub": "ada", "exp": NOW + 100});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        rules(demands.clone()).check(all.as_object().unwrap(), Ends::Always, NOW)
    }

    fn reason(demands: &Value, claims: &Value) -> RefusalReason {
        let unfit = check(demands, claims).expect_err(&format!("{demands} {claims}"));
        assert_eq!(unfit.username.as_deref(), Some("ada"));
        unfit.reason
    }

    #[test]
    fn a_token_holds_from_its_beginning_to_its_end_and_clocks_may_differ() {
        let exact = json!({"clock_skew_s": 0});
        for (claims, outcome) in [
            (json!({"exp": NOW + 1}), Ok(Some(NOW + 1))),
            (json!({"exp": NOW}), Err(RefusalReason::Expired)),
            (json!({"exp": 1_000_000.9}), Err(RefusalReason::Expired)),
            (json!({"exp": NOW + 1, "nbf": NOW}), Ok(Some(NOW + 1))),
            (json!({"exp": NOW + 1, "nbf": NOW + 1}), Err(RefusalReason::NotYetValid)),
            (json!({"exp": "later"}), Err(RefusalReason::Malformed)),
            (json!({"exp": null}), Err(RefusalReason::Malformed)),
            (json!({"exp": 1e300}), Err(RefusalReason::Malformed)),
            (json!({"exp": i64::MIN}), Err(RefusalReason::Expired)),
            (json!({"exp": i64::MAX}), Ok(Some(i64::MAX))),
            (json!({"nbf": [1]}), Err(RefusalReason::Malformed)),
        ] {
            let found = check(&exact, &claims).map(|accepted| accepted.until).map_err(|unfit| unfit.reason);
            assert_eq!(found, outcome, "{claims}");
        }
        let lenient = json!({"clock_skew_s": 30});
        assert_eq!(check(&lenient, &json!({"exp": NOW - 29, "nbf": NOW + 30})).unwrap().until, Some(NOW + 1));
        assert_eq!(reason(&lenient, &json!({"exp": NOW - 30})), RefusalReason::Expired);
        assert_eq!(reason(&lenient, &json!({"nbf": NOW + 31})), RefusalReason::NotYetValid);
    }

    #[test]
    fn a_token_without_an_end_is_taken_only_where_somebody_else_knows_it() {
        let claims = json!({"sub": "ada"});
        let claims = claims.as_object().unwrap();
        let unfit = rules(json!({})).check(claims, Ends::Always, NOW).unwrap_err();
        assert_eq!(unfit.reason, RefusalReason::Claims);
        assert_eq!(rules(json!({})).check(claims, Ends::Perhaps, NOW).unwrap().until, None);
    }

    #[test]
    fn issuer_and_audience_are_compared_as_they_are() {
        let demands = json!({"issuer": "https://id.example", "audience": ["shop", "till"]});
        let good = json!({"iss": "https://id.example", "aud": ["other", "till"]});
        assert!(check(&demands, &good).is_ok());
        assert!(check(&demands, &json!({"iss": "https://id.example", "aud": "shop"})).is_ok());
        for issuer in [json!("https://id.example/"), json!(null), json!(["https://id.example"])] {
            assert_eq!(reason(&demands, &json!({"iss": issuer, "aud": "shop"})), RefusalReason::Issuer);
        }
        assert_eq!(reason(&demands, &json!({"aud": "shop"})), RefusalReason::Issuer);
        for audience in [json!("Shop"), json!([]), json!({"shop": 1}), json!(null)] {
            let claims = json!({"iss": "https://id.example", "aud": audience});
            assert_eq!(reason(&demands, &claims), RefusalReason::Audience, "{claims}");
        }
        assert_eq!(reason(&demands, &json!({"iss": "https://id.example"})), RefusalReason::Audience);
        // A token that says whom it is for is for nobody who does not say who it is.
        assert_eq!(reason(&json!({}), &json!({"aud": "shop"})), RefusalReason::Audience);
    }

    #[test]
    fn scopes_are_read_however_issuers_write_them_and_all_that_are_demanded_must_be_there() {
        let demands = json!({"scopes": ["read", "write"]});
        for claims in [
            json!({"scope": "write  read admin"}),
            json!({"scp": ["read", "write"]}),
            json!({"scope": "read", "scp": "write"}),
        ] {
            assert!(check(&demands, &claims).is_ok(), "{claims}");
        }
        let scopes = check(&demands, &json!({"scope": "write read"})).unwrap().scopes;
        assert_eq!(scopes, ["write", "read"]);
        for claims in
            [json!({}), json!({"scope": "read"}), json!({"scope": "read,write"}), json!({"scope": 1})]
        {
            assert_eq!(reason(&demands, &claims), RefusalReason::Scope, "{claims}");
        }
    }

    #[test]
    fn other_claims_have_one_of_the_values_that_are_wanted() {
        let demands =
            json!({"claims": {"tenant": ["a", "b"], "/realm/roles": "admin", "level": 2, "/a~1b": true}});
        let good = json!({"tenant": "b", "realm": {"roles": ["user", "admin"]}, "level": 2, "a/b": true});
        assert!(check(&demands, &good).is_ok());
        for (pointer, value) in [
            ("/tenant", json!("c")),
            ("/tenant", json!(["c"])),
            ("/realm", json!({"roles": ["user"]})),
            ("/realm", json!(["admin"])),
            ("/level", json!("2")),
            ("/a~1b", json!(null)),
        ] {
            let mut claims = good.clone();
            *claims.pointer_mut(pointer).unwrap() = value;
            assert_eq!(reason(&demands, &claims), RefusalReason::Claims, "{claims}");
        }
    }

    #[test]
    fn the_user_name_is_the_claim_that_is_named() {
        let name = |demands: Value, claims: Value| check(&demands, &claims).unwrap().username;
        assert_eq!(name(json!({}), json!({})).as_deref(), Some("ada"));
        let demands = json!({"username_claim": "/user/name"});
        assert_eq!(name(demands.clone(), json!({"user": {"name": "Ada L."}})).as_deref(), Some("Ada L."));
        assert_eq!(name(demands, json!({})), None);
    }
}
