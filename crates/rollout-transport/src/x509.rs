//! Reads the few fields of a certificate that rollout looks at. It verifies nothing: who trusts
//! what it says has had the chain checked by webpki first.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use yasna::models::TaggedDerValue;
use yasna::tags::TAG_UTCTIME;
use yasna::{ASN1Result, BERReader, BERReaderSeq, Tag, TagClass, parse_der};

use crate::identity::Identity;

const BASIC_CONSTRAINTS: [u64; 4] = [2, 5, 29, 19];
const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];

/// What a certificate says.
#[derive(Debug)]
pub(crate) struct X509 {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) is_ca: bool,
    /// The name, as it stands in the certificate.
    pub(crate) subject: Vec<u8>,
    /// The SubjectPublicKeyInfo, as it stands in the certificate.
    pub(crate) public_key: Vec<u8>,
    /// DNS names and addresses.
    pub(crate) hosts: Vec<String>,
    uris: Vec<String>,
}

impl X509 {
    pub(crate) fn parse(der: &[u8]) -> ASN1Result<Self> {
        parse_der(der, |certificate| {
            certificate.read_sequence(|parts| {
                let parsed = parts.next().read_sequence(to_be_signed)?;
                let _algorithm = parts.next().read_der()?;
                let _signature = parts.next().read_der()?;
                Ok(parsed)
            })
        })
    }

    /// The identity, if there is exactly one URI and it is one.
    pub(crate) fn identity(&self) -> Option<Identity> {
        match self.uris.as_slice() {
            [uri] => Identity::from_uri(uri).ok(),
            _ => None,
        }
    }
}

fn to_be_signed(fields: &mut BERReaderSeq<'_, '_>) -> ASN1Result<X509> {
    let _version = fields.read_optional(|v| v.read_tagged(Tag::context(0), |v| v.read_der()))?;
    for _serial_algorithm_issuer in 0..3 {
        fields.next().read_der()?;
    }
    let (not_before, not_after) =
        fields.next().read_sequence(|v| Ok((time(v.next())?, time(v.next())?)))?;
    let subject = fields.next().read_der()?;
    let public_key = fields.next().read_der()?;
    let mut parsed = X509 {
        not_before,
        not_after,
        is_ca: false,
        subject,
        public_key,
        hosts: Vec::new(),
        uris: Vec::new(),
    };
    while let Some(field) = fields.read_optional(|v| v.read_tagged_der())? {
        if field.tag() == Tag::context(3) {
            parse_der(field.value(), |v| v.read_sequence_of(|v| extension(v, &mut parsed)))?;
        }
    }
    Ok(parsed)
}

fn time(field: BERReader<'_, '_>) -> ASN1Result<SystemTime> {
    Ok(if field.lookahead_tag()? == TAG_UTCTIME {
        (*field.read_utctime()?.datetime()).into()
    } else {
        (*field.read_generalized_time()?.datetime()).into()
    })
}

fn extension(field: BERReader<'_, '_>, parsed: &mut X509) -> ASN1Result<()> {
    let (id, value) = field.read_sequence(|v| {
        let id = v.next().read_oid()?;
        let _critical = v.read_default(false, |v| v.read_bool())?;
        Ok((id, v.next().read_bytes()?))
    })?;
    if id.components().as_slice() == BASIC_CONSTRAINTS {
        parsed.is_ca = parse_der(&value, |v| {
            v.read_sequence(|v| {
                let is_ca = v.read_default(false, |v| v.read_bool())?;
                let _path_length = v.read_optional(|v| v.read_u64())?;
                Ok(is_ca)
            })
        })?;
    } else if id.components().as_slice() == SUBJECT_ALT_NAME {
        parse_der(&value, |v| {
            v.read_sequence_of(|v| {
                alternative_name(&v.read_tagged_der()?, parsed);
                Ok(())
            })
        })?;
    }
    Ok(())
}

fn alternative_name(name: &TaggedDerValue, parsed: &mut X509) {
    let (tag, value) = (name.tag(), name.value());
    if tag.tag_class != TagClass::ContextSpecific {
        return;
    }
    match tag.tag_number {
        2 => parsed.hosts.push(String::from_utf8_lossy(value).into_owned()),
        6 => parsed.uris.push(String::from_utf8_lossy(value).into_owned()),
        7 => parsed.hosts.extend(address(value)),
        _ => {}
    }
}

fn address(octets: &[u8]) -> Option<String> {
    let v4 = || <[u8; 4]>::try_from(octets).map(|o| Ipv4Addr::from(o).to_string());
    let v6 = || <[u8; 16]>::try_from(octets).map(|o| Ipv6Addr::from(o).to_string());
    v4().or_else(|_| v6()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData, SanType};

    use super::*;

    fn certificate(sans: Vec<SanType>, is_ca: IsCa) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_before = (UNIX_EPOCH + Duration::from_secs(1_700_000_000)).into();
        params.not_after = (UNIX_EPOCH + Duration::from_secs(3_000_000_000)).into();
        params.subject_alt_names = sans;
        params.is_ca = is_ca;
        (params.self_signed(&key).unwrap().der().to_vec(), key)
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn every_field_is_read_as_it_was_written() {
        let sans = vec![
            SanType::DnsName("host.example".try_into().unwrap()),
            SanType::IpAddress([10, 0, 0, 1].into()),
            SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
            uri("spiffe://rollout/coordinator"),
        ];
        let (der, key) = certificate(sans, IsCa::NoCa);
        let parsed = X509::parse(&der).unwrap();
        assert_eq!(parsed.not_before, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        assert_eq!(parsed.not_after, UNIX_EPOCH + Duration::from_secs(3_000_000_000));
        assert_eq!(parsed.hosts, ["host.example", "10.0.0.1", "::1"]);
        assert_eq!(parsed.identity(), Some(Identity::Coordinator));
        assert_eq!(parsed.public_key, key.subject_public_key_info());
        assert!(!parsed.is_ca);
    }

    #[test]
    fn a_ca_is_told_from_a_leaf() {
        for constraint in [BasicConstraints::Unconstrained, BasicConstraints::Constrained(0)] {
            let (der, _) = certificate(vec![], IsCa::Ca(constraint));
            assert!(X509::parse(&der).unwrap().is_ca);
        }
        let (der, _) = certificate(vec![], IsCa::ExplicitNoCa);
        assert!(!X509::parse(&der).unwrap().is_ca);
    }

    #[test]
    fn a_certificate_with_two_uris_or_none_has_no_identity() {
        let coordinator = || uri("spiffe://rollout/coordinator");
        for sans in [vec![], vec![coordinator(), coordinator()], vec![uri("https://x/coordinator")]]
        {
            let (der, _) = certificate(sans, IsCa::NoCa);
            assert_eq!(X509::parse(&der).unwrap().identity(), None);
        }
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_another_reading_and_never_a_panic(
            at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(),
        ) {
            let (mut der, _) = certificate(vec![uri("spiffe://rollout/coordinator")], IsCa::NoCa);
            let at = at.index(der.len());
            der[at] = byte;
            let _ = X509::parse(&der);
            let cut = cut.index(der.len());
            prop_assert!(X509::parse(&der[..cut]).is_err());
        }
    }
}
