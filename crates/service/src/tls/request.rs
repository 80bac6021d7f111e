//! What is asked of an authority: a key under some names, with the word of each named host.
//!
//! A host's lasting Ed25519 key, the one that signs its digests, says that the certificate's key is the host's:
//! whoever has a token cannot take the name of a host that is not theirs.

use dfs_model::HostId;
use dfs_peer::digests;
use dfs_proto::manager::{CertificateRequest, Claim};
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey as _};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use zeroize::Zeroizing;

use super::names::{BadNames, MAX_NAMES, Name, Names, Role};

/// Separate these signatures from any other use of the keys.
const CLAIM: &[u8] = b"dfs.certificate.v1.claim\0";
const PROOF: &[u8] = b"dfs.certificate.v1.proof\0";

/// A point of P-256, uncompressed.
pub const KEY_BYTES: usize = 65;
/// The longest signature by a P-256 key, in DER.
const MAX_PROOF: usize = 80;

/// A request that no authority signs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// A field that is missing, too long or unreadable.
    #[error("the request's {0} is malformed")]
    Malformed(&'static str),
    /// Names that cannot stand together.
    #[error(transparent)]
    Names(#[from] BadNames),
    /// A host did not sign.
    #[error("host {0} has not signed for this key")]
    BadClaim(HostId),
    /// The key's owner did not sign.
    #[error("the request is not signed with the key that it names")]
    BadProof,
}

/// A private key, made here.
pub struct Key(KeyPair);

impl Key {
    /// A new one.
    pub fn generate() -> Result<Self, rcgen::Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self)
    }

    /// One that was saved, in PKCS #8.
    pub fn of_pem(pem: &str) -> Result<Self, rcgen::Error> {
        KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).map(Self)
    }

    /// To be saved, where nobody else reads it.
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// In PKCS #8.
    pub(super) fn der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize_der())
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.0
    }

    fn point(&self) -> &[u8] {
        self.0.der_bytes()
    }
}

/// A host of this process, in a role: the name that is asked for, and what signs for it.
#[derive(Clone)]
pub struct Host {
    /// Its lasting name and key.
    pub identity: digests::Identity,
    /// As what it takes part.
    pub role: Role,
}

impl Host {
    /// How a certificate names it.
    pub fn name(&self) -> Name {
        Name { host: self.identity.host(), role: self.role }
    }
}

/// The names of some hosts of this process.
pub fn names_of(hosts: &[Host]) -> Result<Names, BadNames> {
    Names::new(hosts.iter().map(Host::name).collect())
}

/// Asks for a certificate of `key` that names these hosts.
pub fn ask(key: &Key, hosts: &[Host]) -> Result<CertificateRequest, rcgen::Error> {
    let claims: Vec<Claim> = hosts.iter().map(|host| claim(key, host)).collect();
    let proof = key.0.sign(&proof_message(key.point(), &claims))?;
    Ok(CertificateRequest { key: key.point().to_vec().into(), claims, proof: proof.into() })
}

fn claim(key: &Key, host: &Host) -> Claim {
    let message = claim_message(key.point(), host.name());
    Claim {
        host_id: host.identity.host().as_bytes().to_vec().into(),
        role: host.role.wire().into(),
        public_key: host.identity.public_key().to_vec().into(),
        signature: host.identity.signing_key().sign(&message).to_vec().into(),
    }
}

fn claim_message(point: &[u8], name: Name) -> Vec<u8> {
    [CLAIM, point, name.to_string().as_bytes()].concat()
}

fn proof_message(point: &[u8], claims: &[Claim]) -> Vec<u8> {
    let signatures: Vec<&[u8]> = claims.iter().map(|claim| &claim.signature[..]).collect();
    [PROOF, point, &signatures.concat()].concat()
}

/// A request whose every signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    point: Vec<u8>,
    names: Names,
    hosts: Vec<(HostId, [u8; 32])>,
}

impl SigningRequest {
    /// Reads a request and checks all that it says. Nothing of it is believed before.
    pub fn read(request: &CertificateRequest) -> Result<Self, BadRequest> {
        let point = &request.key[..];
        if point.len() != KEY_BYTES || point[0] != 4 {
            return Err(BadRequest::Malformed("key"));
        }
        if request.claims.len() > MAX_NAMES {
            return Err(BadNames::TooMany(request.claims.len()).into());
        }
        if request.proof.len() > MAX_PROOF {
            return Err(BadRequest::Malformed("proof"));
        }
        let claims = request.claims.iter().map(|claim| read_claim(point, claim));
        let claims = claims.collect::<Result<Vec<_>, BadRequest>>()?;
        let names = Names::new(claims.iter().map(|(name, _)| *name).collect())?;
        check_proof(point, &proof_message(point, &request.claims), &request.proof)?;
        let hosts = claims.into_iter().map(|(name, key)| (name.host, key)).collect();
        Ok(Self { point: point.to_vec(), names, hosts })
    }

    /// The names that are asked for.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The hosts, each with its lasting key.
    pub fn hosts(&self) -> &[(HostId, [u8; 32])] {
        &self.hosts
    }

    /// Stands for the key: two requests for one key have the same.
    pub fn key_hash(&self) -> [u8; 32] {
        *blake3::hash(&self.point).as_bytes()
    }
}

impl PublicKeyData for SigningRequest {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn read_claim(point: &[u8], claim: &Claim) -> Result<(Name, [u8; 32]), BadRequest> {
    let host = HostId::from_slice(&claim.host_id).ok_or(BadRequest::Malformed("host id"))?;
    let role = Role::of_wire(claim.role()).ok_or(BadRequest::Malformed("role"))?;
    let name = Name { host, role };
    let public: [u8; 32] =
        claim.public_key[..].try_into().map_err(|_| BadRequest::Malformed("public key"))?;
    let bad = |_| BadRequest::BadClaim(host);
    let key = VerifyingKey::from_bytes(&public).map_err(bad)?;
    let signature = Signature::from_slice(&claim.signature).map_err(bad)?;
    key.verify_strict(&claim_message(point, name), &signature).map_err(bad)?;
    Ok((name, public))
}

/// The same code that checks certificates checks that the key is its owner's, and a key at all.
fn check_proof(point: &[u8], message: &[u8], proof: &[u8]) -> Result<(), BadRequest> {
    let schemes = aws_lc_rs::default_provider().signature_verification_algorithms.mapping;
    let p256 = schemes.iter().find(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256);
    let algorithms = p256.map(|(_, algorithms)| *algorithms).unwrap_or_default();
    // One for each curve that the hash may go with: ours is the one that takes the point.
    let mut taken = algorithms
        .iter()
        .map(|algorithm| algorithm.verify_signature(point, message, proof).is_ok());
    match taken.any(|is_taken| is_taken) {
        true => Ok(()),
        false => Err(BadRequest::BadProof),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn host(role: Role) -> Host {
        let dir = tempfile::tempdir().unwrap();
        Host { identity: digests::Identity::load_or_create(dir.path()).unwrap(), role }
    }

    #[test]
    fn a_request_is_read_as_it_was_made() {
        let (key, hosts) = (Key::generate().unwrap(), [host(Role::Scheduler), host(Role::Seed)]);
        let asked = ask(&key, &hosts).unwrap();
        let read = SigningRequest::read(&asked).unwrap();
        assert_eq!(read.names(), &names_of(&hosts).unwrap());
        let again = Key::of_pem(&key.pem()).unwrap();
        let again = SigningRequest::read(&ask(&again, &hosts).unwrap()).unwrap();
        assert_eq!(read.key_hash(), again.key_hash());
    }

    #[test]
    fn nobody_asks_in_anothers_name_or_for_anothers_key() {
        let (key, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        let hosts = [host(Role::Node)];
        let good = ask(&key, &hosts).unwrap();
        let theirs = ask(&other, &hosts).unwrap();

        let mut stolen = good.clone();
        stolen.key = theirs.key.clone();
        assert!(matches!(SigningRequest::read(&stolen), Err(BadRequest::BadClaim(_))));
        let mut unproven = good.clone();
        unproven.proof = theirs.proof.clone();
        assert_eq!(SigningRequest::read(&unproven), Err(BadRequest::BadProof));
        let mut raised = good.clone();
        raised.claims[0].role = manager_role(Role::Manager);
        assert!(matches!(SigningRequest::read(&raised), Err(BadRequest::BadClaim(_))));
        let mut renamed = good.clone();
        renamed.claims[0].host_id = vec![9; 16].into();
        assert!(matches!(SigningRequest::read(&renamed), Err(BadRequest::BadClaim(_))));
    }

    fn manager_role(role: Role) -> i32 {
        role.wire().into()
    }

    #[test]
    fn what_is_malformed_is_refused_before_anything_is_computed() {
        let (key, hosts) = (Key::generate().unwrap(), [host(Role::Node)]);
        let good = ask(&key, &hosts).unwrap();
        let mut bad = Vec::new();
        for length in [0, 33, 64, 66, 1 << 16] {
            let key = vec![4; length].into();
            bad.push(CertificateRequest { key, ..good.clone() });
        }
        // Of the right length, and on no curve.
        bad.push(CertificateRequest { key: vec![4; KEY_BYTES].into(), ..good.clone() });
        bad.push(CertificateRequest { claims: Vec::new(), ..good.clone() });
        bad.push(CertificateRequest { claims: vec![good.claims[0].clone(); 9], ..good.clone() });
        bad.push(CertificateRequest { proof: vec![0; 81].into(), ..good.clone() });
        bad.push(CertificateRequest { proof: Vec::new().into(), ..good.clone() });
        for field in 0..4 {
            let mut request = good.clone();
            match field {
                0 => request.claims[0].role = 0,
                1 => request.claims[0].host_id = vec![1; 15].into(),
                2 => request.claims[0].public_key = vec![1; 31].into(),
                _ => request.claims[0].signature = vec![1; 63].into(),
            }
            bad.push(request);
        }
        for request in bad {
            assert!(SigningRequest::read(&request).is_err(), "{request:?}");
        }
    }
}
