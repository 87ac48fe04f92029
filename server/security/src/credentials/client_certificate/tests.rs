//! Certificates of every sort against definitions of every sort, with the hour as an argument.

use std::time::SystemTime;

use crosstie_model::definition::{SecurityDefinition, attribute_name};
use http::HeaderValue;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use serde_json::{Value, json};

use super::*;

/// 2026-01-01.
const NOW: i64 = 1_767_225_600;

fn date(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix).unwrap()
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (date(NOW - 1_000_000), date(NOW + 1_000_000));
        params
    }

    fn new(name: &str) -> Self {
        let (params, key) = (Self::params(name), KeyPair::generate().unwrap());
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn below(&self, name: &str) -> (Self, CertificateDer<'static>) {
        let (params, key) = (Self::params(name), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let own = Self { pem: certificate.pem(), issuer: Issuer::new(params, key) };
        (own, certificate.der().clone())
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc.");
        params.distinguished_name.push(DnType::CommonName, "shop");
        params.subject_alt_names = vec![
            SanType::DnsName("shop.example".try_into().unwrap()),
            SanType::Rfc822Name("ops@shop.example".try_into().unwrap()),
            SanType::URI("spiffe://shop.example/api".try_into().unwrap()),
            SanType::IpAddress("192.0.2.7".parse().unwrap()),
        ];
        params.serial_number = Some(SerialNumber::from(0x0123_4567_u64));
        (params.not_before, params.not_after) = (date(NOW - 1_000), date(NOW + 1_000));
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
    }

    /// A list that names `serials`.
    fn list(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date(NOW - 10),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date(NOW - 100),
            next_update: date(NOW + 100),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn check(ca: &str, more: Value) -> ClientCertificateCheck {
    let mut body = json!({"type": "client_certificate", "ca": ca});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let definition: SecurityDefinition = serde_json::from_value(body).unwrap();
    let material = Material::of_text(&definition).unwrap();
    let SecurityDefinition::ClientCertificate(body) = &definition else { panic!() };
    ClientCertificateCheck::new(body, &material, Principal::new("partners", "client_certificate")).unwrap()
}

fn at(unix: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(unix.try_into().unwrap())
}

fn ask_at(
    check: &ClientCertificateCheck,
    chain: &[CertificateDer<'static>],
    unix: i64,
) -> Result<Arc<Principal>, RefusalReason> {
    let (headers, chain) = (HeaderMap::new(), ClientChain::new(chain).unwrap());
    let mut presented = Presented::now(&headers, &[]).with_certificate(ShownCertificate::Direct(&chain));
    presented.now = at(unix);
    check.authenticate(&presented).map_err(|denial| denial.reason)
}

fn ask(
    check: &ClientCertificateCheck,
    certificate: &CertificateDer<'static>,
) -> Result<Arc<Principal>, RefusalReason> {
    ask_at(check, std::slice::from_ref(certificate), NOW)
}

#[test]
fn a_certificate_says_who_comes() {
    let authority = Authority::new("Partners CA");
    let certificate = authority.issue(|_| {});
    let principal = ask(&check(&authority.pem, json!({})), &certificate).unwrap();
    assert_eq!(principal.username.as_deref(), Some("shop"));
    let told = principal.certificate.clone().unwrap();
    assert_eq!(
        told,
        Certificate {
            subject: "CN=shop,O=Acme\\, Inc.,C=DE".into(),
            issuer: "CN=Partners CA".into(),
            sans: [
                "dns:shop.example",
                "email:ops@shop.example",
                "uri:spiffe://shop.example/api",
                "ip:192.0.2.7"
            ]
            .map(str::to_owned)
            .into(),
            serial: "01234567".into(),
            fingerprint: hex::encode(Sha256::digest(&certificate)),
            not_before: date(NOW - 1_000),
            not_after: date(NOW + 1_000),
        }
    );
    let nameless = authority.issue(|params| params.distinguished_name = DistinguishedName::new());
    let principal = ask(&check(&authority.pem, json!({})), &nameless).unwrap();
    assert_eq!(principal.username.as_deref(), Some("dns:shop.example"));
    assert_eq!(attribute_name("2.5.4.10"), Some("O"));
}

#[test]
fn every_list_that_says_something_must_have_something_that_fits() {
    let authority = Authority::new("Partners CA");
    let certificate = authority.issue(|_| {});
    let fingerprint = hex::encode_upper(Sha256::digest(&certificate));
    for fits in [
        json!({"subjects": [{"CN": "other"}, {"CN": "shop", "o": "Acme, Inc."}]}),
        json!({"subjects": [{"2.5.4.6": "DE"}], "issuers": [{"CN": "Partners CA"}]}),
        json!({"sans": ["dns:other.example", "dns:SHOP.example"]}),
        json!({"sans": ["ip:192.0.2.7"]}),
        json!({"sans": ["uri:spiffe://shop.example/api"], "fingerprints": [fingerprint]}),
    ] {
        assert!(ask(&check(&authority.pem, fits.clone()), &certificate).is_ok(), "{fits}");
    }
    for other in [
        json!({"subjects": [{"CN": "Shop"}]}),
        json!({"subjects": [{"CN": "shop", "O": "Other"}]}),
        json!({"subjects": [{"OU": "shop"}]}),
        json!({"subjects": [{"CN": "shop"}], "issuers": [{"CN": "Other CA"}]}),
        json!({"subjects": [{"CN": "shop"}], "sans": ["dns:other.example"]}),
        json!({"sans": ["dns:ops@shop.example"]}),
        json!({"fingerprints": ["00".repeat(32)]}),
    ] {
        assert_eq!(
            ask(&check(&authority.pem, other.clone()), &certificate),
            Err(RefusalReason::Claims),
            "{other}"
        );
    }
}

#[test]
fn what_others_issued_or_what_is_over_is_refused() {
    let authority = Authority::new("Partners CA");
    let partners = check(&authority.pem, json!({}));
    let certificate = authority.issue(|_| {});
    // The same name, another key.
    let impostor = Authority::new("Partners CA");
    for stranger in [impostor.issue(|_| {}), Authority::new("Other CA").issue(|_| {})] {
        let refused = ask(&partners, &stranger).unwrap_err();
        assert!(matches!(refused, RefusalReason::Untrusted | RefusalReason::Wrong), "{refused}");
    }
    let chain = [certificate.clone()];
    assert_eq!(ask_at(&partners, &chain, NOW - 2_000), Err(RefusalReason::NotYetValid));
    assert!(ask_at(&partners, &chain, NOW).is_ok());
    assert!(ask_at(&partners, &chain, NOW + 999).is_ok());
    assert_eq!(ask_at(&partners, &chain, NOW + 1_001), Err(RefusalReason::Expired), "although it is known");

    let server = authority.issue(|params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(ask(&partners, &server), Err(RefusalReason::Untrusted), "it is for servers");
    let garbage = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
    assert_eq!(ask(&partners, &garbage), Err(RefusalReason::Malformed));
}

#[test]
fn an_authority_in_between_comes_with_the_handshake_or_is_trusted_itself() {
    let root = Authority::new("Root");
    let (between, certificate_between) = root.below("Between");
    let certificate = between.issue(|_| {});
    let chain = [certificate.clone(), certificate_between];
    assert!(ask_at(&check(&root.pem, json!({})), &chain, NOW).is_ok());
    assert_eq!(ask(&check(&root.pem, json!({})), &certificate), Err(RefusalReason::Untrusted));
    assert!(ask(&check(&between.pem, json!({})), &certificate).is_ok());
}

#[test]
fn what_was_taken_back_is_refused_and_so_is_all_when_nobody_says() {
    let authority = Authority::new("Partners CA");
    let certificate = authority.issue(|_| {});
    let with_list = |list: &str| check(&authority.pem, json!({"crl": list}));
    assert_eq!(
        ask(&with_list(&authority.list(&[1, 0x0123_4567])), &certificate),
        Err(RefusalReason::Revoked)
    );
    let fresh = with_list(&authority.list(&[1]));
    assert!(ask(&fresh, &certificate).is_ok());
    let refused = ask_at(&fresh, std::slice::from_ref(&certificate), NOW + 500);
    assert_eq!(refused, Err(RefusalReason::Unavailable), "the list is too old by then");
    let of_another = with_list(&Authority::new("Other CA").list(&[1]));
    assert_eq!(ask(&of_another, &certificate), Err(RefusalReason::Unavailable));
}

#[test]
fn a_load_balancers_word_is_verified_again_and_nobody_elses_is_heard() {
    let authority = Authority::new("Partners CA");
    let partners = check(&authority.pem, json!({"subjects": [{"CN": "shop"}]}));
    let told = |certificate: &[u8], verdict: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(TOLD_VERDICT, HeaderValue::from_static(verdict));
        headers.insert(TOLD_CERTIFICATE, HeaderValue::try_from(STANDARD.encode(certificate)).unwrap());
        headers
    };
    let ask = |headers: &HeaderMap, shown| {
        let mut presented = Presented::now(headers, &[]).with_certificate(shown);
        presented.now = at(NOW);
        partners
            .authenticate(&presented)
            .map(|principal| principal.username.clone())
            .map_err(|denial| denial.reason)
    };
    let balancer = ShownCertificate::ToldByLoadBalancer;
    let good = told(&authority.issue(|_| {}), "SUCCESS");
    for _ in 0..2 {
        assert_eq!(ask(&good, balancer), Ok(Some("shop".into())));
    }
    assert_eq!(ask(&good, ShownCertificate::None), Err(RefusalReason::Missing), "headers of a stranger");
    assert_eq!(ask(&told(&authority.issue(|_| {}), "NONE"), balancer), Err(RefusalReason::Missing));
    assert_eq!(ask(&HeaderMap::new(), balancer), Err(RefusalReason::Missing));
    let stranger = told(&Authority::new("Other CA").issue(|_| {}), "SUCCESS");
    assert_eq!(ask(&stranger, balancer), Err(RefusalReason::Untrusted));
    let mut twice = good.clone();
    twice.append(TOLD_CERTIFICATE, HeaderValue::from_static("AAAA"));
    assert_eq!(ask(&twice, balancer), Err(RefusalReason::Malformed));
    let mut broken = good.clone();
    broken.insert(TOLD_CERTIFICATE, HeaderValue::from_static("???"));
    assert_eq!(ask(&broken, balancer), Err(RefusalReason::Malformed));
}

#[test]
fn what_cannot_be_read_is_told_before_it_is_stored() {
    let name = "partners".parse().unwrap();
    let faults = |body: Value| {
        let definition: SecurityDefinition = serde_json::from_value(body).unwrap();
        let faults = super::super::faults_of(&name, &definition);
        faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>()
    };
    let pem = Authority::new("Partners CA").pem;
    let body = |ca: &str, crl: &str| json!({"type": "client_certificate", "ca": ca, "crl": crl});
    assert_eq!(faults(body("nonsense", "x")), ["/ca"]);
    assert_eq!(faults(body(&pem, "nonsense")), ["/crl"]);
    assert_eq!(faults(body("file:ca.pem", "nonsense")), Vec::<String>::new(), "only servers have the file");
    assert_eq!(faults(json!({"type": "client_certificate", "ca": pem})), Vec::<String>::new());
}
