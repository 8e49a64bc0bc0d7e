#include "common/rpc/credentials.h"

#include <fcntl.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/support/client_interceptor.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/repeating.h"
#include "common/base/status_macros.h"
#include "common/base/strings.h"
#include "common/base/sync.h"
#include "common/base/watched_file.h"
#include "common/rpc/header.h"
#include "common/rpc/log.h"
#include "common/rpc/server.h"

namespace retro {
namespace {

// OpenSSL is not taken down as the process ends: threads of gRPC's that nobody can wait for may still be in it. It has
// to be told before anything uses it.
[[maybe_unused]] const int kept = OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr);

constexpr unsigned kRefreshSeconds = 1;
constexpr int kKeepaliveMs = 30'000;  // our servers allow a ping every 20 s
constexpr int kKeepaliveTimeoutMs = 10'000;
constexpr int kBetweenResolutionsMs = 1000;  // else 30 s, in which a peer that came back elsewhere is not found
constexpr char kKeyForm[] = "an API key is one word of visible ASCII characters";

template <typename T, void (*kFree)(T*)>
struct Freer {
  void operator()(T* object) const { kFree(object); }
};
using Bio = std::unique_ptr<BIO, Freer<BIO, BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Freer<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY, EVP_PKEY_free>>;

// No passphrase is ever asked for on a terminal.
int NoPassphrase(char*, int, int, void*) { return -1; }

absl::StatusOr<Certificate> ParseCertificate(const std::string& pem, const std::string& name) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr));
  if (certificate == nullptr) return absl::InvalidArgumentError(StrCat(name, " holds no certificate in PEM"));
  return certificate;
}

absl::StatusOr<Certificate> ReadCertificate(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(const std::string pem, ReadFile(path));
  return ParseCertificate(pem, path);
}

absl::StatusOr<Key> ParseKey(const std::string& pem, const std::string& name) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr)
    return absl::InvalidArgumentError(StrCat(name, " holds no private key in PEM without passphrase"));
  return key;
}

absl::StatusOr<Key> ReadKey(const std::string& path) {
  RETRO_ASSIGN_OR_RETURN(const std::string pem, ReadFile(path));
  return ParseKey(pem, path);
}

absl::Status OfFlag(const std::string& flag, const absl::Status& status) {
  return status.ok() ? status : FieldError(flag, MessageOf(status));
}

// A certificate with its key; both or neither.
absl::Status CheckIdentity(const std::string& prefix, const std::string& certificate_path,
                           const std::string& key_path) {
  const std::string certificate_flag = StrCat("--", prefix, "tls-certificate");
  const std::string key_flag = StrCat("--", prefix, "tls-key");
  if (certificate_path.empty() != key_path.empty()) {
    return FieldError(certificate_path.empty() ? certificate_flag : key_flag,
                      "a certificate and its key go together: give both");
  }
  if (certificate_path.empty()) return absl::OkStatus();
  const auto certificate = ReadCertificate(certificate_path);
  if (!certificate.ok()) return OfFlag(certificate_flag, certificate.status());
  const auto key = ReadKey(key_path);
  if (!key.ok()) return OfFlag(key_flag, key.status());
  if (X509_check_private_key(certificate->get(), key->get()) != 1) {
    return FieldError(key_flag, StrCat(key_path, " is not the key of ", certificate_path));
  }
  if (X509_cmp_current_time(X509_get0_notAfter(certificate->get())) < 0) {
    return FieldError(certificate_flag, StrCat(certificate_path, " has expired: renew it"));
  }
  return absl::OkStatus();
}

absl::Status CheckAuthority(const std::string& flag, const std::string& path) {
  return path.empty() ? absl::OkStatus() : OfFlag(flag, ReadCertificate(path).status());
}

// Files of PEM, by path; "" for none.
struct PemFiles {
  std::string certificate, key, authority;
  auto operator<=>(const PemFiles&) const = default;
};

// MFD_NOEXEC_SEAL of Linux 6.3, without which a kernel with vm.memfd_noexec=2 makes no such file; older ones do not
// know it.
constexpr unsigned kNotToBeRun = 8;

// A text that is read by a path.
class MemoryFile {
 public:
  static absl::StatusOr<MemoryFile> Of(const std::string& text) {
    MemoryFile file;
    if (text.empty()) return file;
    file.descriptor_ = memfd_create("pem", MFD_CLOEXEC | kNotToBeRun);
    if (file.descriptor_ < 0 && errno == EINVAL) file.descriptor_ = memfd_create("pem", MFD_CLOEXEC);
    if (file.descriptor_ < 0 ||
        write(file.descriptor_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
      return ErrnoStatus(errno, "cannot copy a PEM file to", "memory");
    }
    return file;
  }

  MemoryFile() = default;
  MemoryFile(MemoryFile&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  MemoryFile& operator=(MemoryFile&&) = delete;
  ~MemoryFile() {
    if (descriptor_ >= 0) close(descriptor_);
  }

  // The path stays if there was one: whoever opens it finds the old text or the new one, whole.
  void Become(MemoryFile other) {
    if (descriptor_ < 0 || other.descriptor_ < 0) {
      std::swap(descriptor_, other.descriptor_);
    } else {
      while (dup3(other.descriptor_, descriptor_, O_CLOEXEC) < 0) {  // EINTR, or EBUSY beside an open()
      }
    }
  }

  // "" without a text.
  std::string path() const { return descriptor_ < 0 ? "" : StrCat("/proc/self/fd/", descriptor_); }

 private:
  int descriptor_ = -1;
};

// Copies in memory that follow files which whole ones and fitting ones replace: gRPC 1.51 ends the process if it finds
// one that is empty, as it is while somebody writes it, and no handshake works while certificate and key do not fit.
class PemCopies {
 public:
  // The copies that follow `files`, which stay for as long as the process runs, as what reads them may. With what the
  // files hold now, or, if that is none, what they held last.
  static PemCopies& Of(const PemFiles& files) {
    static Mutex mutex;
    static std::map<PemFiles, std::unique_ptr<PemCopies>> all;
    const MutexLock lock(mutex);
    std::unique_ptr<PemCopies>& copies = all[files];
    if (copies == nullptr) {
      copies = std::make_unique<PemCopies>(files);
    } else {
      copies->Follow();
    }
    return *copies;
  }

  explicit PemCopies(const PemFiles& files)
      : files_(files), watch_(std::chrono::milliseconds(500), [this] { Follow(); }) {}

  // Their paths, which do not change. Fails while nothing was taken.
  absl::StatusOr<PemFiles> paths() ABSL_LOCKS_EXCLUDED(mutex_) {
    const MutexLock lock(mutex_);
    if (taken_ == PemFiles()) return last_;
    return paths_;
  }
  std::string certificate() ABSL_LOCKS_EXCLUDED(mutex_) {
    const MutexLock lock(mutex_);
    return taken_.certificate;
  }

 private:
  void Follow() ABSL_LOCKS_EXCLUDED(mutex_) {
    const MutexLock lock(mutex_);
    absl::Status status = Take();
    if (status == last_) return;
    last_ = status;
    if (!status.ok()) {
      LogEvent(spdlog::level::err, "tls files not taken", {{"message", std::string(MessageOf(status))}});
    }
  }

  absl::Status Take() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    PemFiles pem;
    if (!files_.certificate.empty()) {
      RETRO_ASSIGN_OR_RETURN(pem.certificate, ReadFile(files_.certificate));
      RETRO_ASSIGN_OR_RETURN(pem.key, ReadFile(files_.key));
      RETRO_ASSIGN_OR_RETURN(const Certificate certificate, ParseCertificate(pem.certificate, files_.certificate));
      RETRO_ASSIGN_OR_RETURN(const Key key, ParseKey(pem.key, files_.key));
      if (X509_check_private_key(certificate.get(), key.get()) != 1) {
        return absl::InvalidArgumentError(StrCat(files_.key, " is not the key of ", files_.certificate));
      }
    }
    if (!files_.authority.empty()) {
      RETRO_ASSIGN_OR_RETURN(pem.authority, ReadFile(files_.authority));
      RETRO_RETURN_IF_ERROR(ParseCertificate(pem.authority, files_.authority).status());
    }
    if (pem == taken_) return absl::OkStatus();
    // All of them or none: placing one needs no further room or open file.
    RETRO_ASSIGN_OR_RETURN(MemoryFile key, MemoryFile::Of(pem.key));
    RETRO_ASSIGN_OR_RETURN(MemoryFile certificate, MemoryFile::Of(pem.certificate));
    RETRO_ASSIGN_OR_RETURN(MemoryFile authority, MemoryFile::Of(pem.authority));
    key_.Become(std::move(key));
    certificate_.Become(std::move(certificate));
    authority_.Become(std::move(authority));
    paths_ = {certificate_.path(), key_.path(), authority_.path()};
    taken_ = std::move(pem);
    return absl::OkStatus();
  }

  const PemFiles files_;
  Mutex mutex_;
  MemoryFile certificate_ ABSL_GUARDED_BY(mutex_), key_ ABSL_GUARDED_BY(mutex_), authority_ ABSL_GUARDED_BY(mutex_);
  PemFiles paths_ ABSL_GUARDED_BY(mutex_);
  PemFiles taken_ ABSL_GUARDED_BY(mutex_);  // what they hold
  absl::Status last_ ABSL_GUARDED_BY(mutex_);
  Repeating watch_;  // last: it uses all of the above
};

// The key that goes with each call.
class ApiKeySource {
 public:
  explicit ApiKeySource(const ClientSecurity& security) : file_(security.api_key_file), key_(security.api_key) {}

  absl::Status Refresh() {
    const MutexLock lock(mutex_);
    return RefreshLocked();
  }

  std::string Authorization() {
    const MutexLock lock(mutex_);
    if (const absl::Status status = RefreshLocked(); !status.ok()) {
      LogEvent(spdlog::level::err, "api key not read", {{"message", std::string(status.message())}});
    }
    return "Bearer " + key_;
  }

 private:
  absl::Status RefreshLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (file_.path().empty()) return absl::OkStatus();
    RETRO_ASSIGN_OR_RETURN(const std::optional<std::string> content, file_.News());
    if (!content.has_value()) return absl::OkStatus();
    const std::string key(absl::StripAsciiWhitespace(*content));
    if (!IsHeaderValue(key)) return absl::InvalidArgumentError(StrCat(file_.path(), " holds no key: ", kKeyForm));
    key_ = key;
    return absl::OkStatus();
  }

  Mutex mutex_;
  WatchedFile file_ ABSL_GUARDED_BY(mutex_);
  std::string key_ ABSL_GUARDED_BY(mutex_);
};

// gRPC's own call credentials refuse plaintext even on loopback, so the key is put in by an interceptor.
class ApiKeyInterceptor final : public grpc::experimental::Interceptor {
 public:
  explicit ApiKeyInterceptor(std::shared_ptr<ApiKeySource> source) : source_(std::move(source)) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->emplace("authorization", source_->Authorization());
    }
    methods->Proceed();
  }

 private:
  const std::shared_ptr<ApiKeySource> source_;
};

class ApiKeyInterceptorFactory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit ApiKeyInterceptorFactory(std::shared_ptr<ApiKeySource> source) : source_(std::move(source)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(grpc::experimental::ClientRpcInfo*) override {
    return new ApiKeyInterceptor(source_);  // gRPC deletes it
  }

 private:
  const std::shared_ptr<ApiKeySource> source_;
};

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(const ClientSecurity& security) {
  if (security.ca.empty()) return grpc::InsecureChannelCredentials();
  grpc::experimental::TlsChannelCredentialsOptions options;
  RETRO_ASSIGN_OR_RETURN(const PemFiles files,
                         PemCopies::Of({security.certificate, security.key, security.ca}).paths());
  options.set_certificate_provider(std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      files.key, files.certificate, files.authority, kRefreshSeconds));
  options.watch_root_certs();
  if (!security.certificate.empty()) options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

bool HasKey(const ClientSecurity& security) { return !security.api_key.empty() || !security.api_key_file.empty(); }

absl::Status CheckClient(const std::string& target, const ClientSecurity& security, const std::string& prefix) {
  RETRO_RETURN_IF_ERROR(CheckAuthority(StrCat("--", prefix, "tls-ca"), security.ca));
  RETRO_RETURN_IF_ERROR(CheckIdentity(prefix, security.certificate, security.key));
  if (!security.certificate.empty() && security.ca.empty()) {
    return FieldError(StrCat("--", prefix, "tls-ca"), "a client's certificate goes with it: give both");
  }
  if (!security.api_key.empty() && !IsHeaderValue(security.api_key)) {
    return absl::InvalidArgumentError(StrCat("the API key cannot be sent: ", kKeyForm));
  }
  if (HasKey(security) && security.ca.empty() && !IsLoopback(target) && !security.allow_plaintext_key_beyond_loopback) {
    return FieldError(StrCat("--", prefix, "tls-ca"), StrCat("the API key would go to ", target,
                                                             " in plaintext: give the file of the authority that "
                                                             "signed the server's certificate"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckServerTls(const ServerTls& tls) {
  RETRO_RETURN_IF_ERROR(CheckIdentity("", tls.certificate, tls.key));
  RETRO_RETURN_IF_ERROR(CheckAuthority("--tls-client-ca", tls.client_ca));
  if (!tls.client_ca.empty() && !tls.enabled()) {
    return FieldError("--tls-client-ca", "mutual TLS needs --tls-certificate and --tls-key");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const ServerTls& tls) {
  if (!tls.enabled()) return grpc::InsecureServerCredentials();
  RETRO_ASSIGN_OR_RETURN(const PemFiles files, PemCopies::Of({tls.certificate, tls.key, tls.client_ca}).paths());
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(files.key, files.certificate,
                                                                           files.authority, kRefreshSeconds));
  options.watch_identity_key_cert_pairs();
  if (!tls.client_ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

absl::StatusOr<std::chrono::system_clock::time_point> ServedCertificateExpiry(const ServerTls& tls) {
  return CertificateExpiry(PemCopies::Of({tls.certificate, tls.key, tls.client_ca}).certificate(), tls.certificate);
}

absl::StatusOr<std::chrono::system_clock::time_point> CertificateExpiry(const std::string& pem,
                                                                        const std::string& name) {
  RETRO_ASSIGN_OR_RETURN(const Certificate certificate, ParseCertificate(pem, name));
  std::tm time = {};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &time) != 1) {
    return absl::InvalidArgumentError(StrCat(name, " holds a certificate without an end"));
  }
  return std::chrono::system_clock::from_time_t(timegm(&time));
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& target, const ClientSecurity& security,
                                                           grpc::ChannelArguments arguments,
                                                           const std::string& flag_prefix) {
  RETRO_RETURN_IF_ERROR(CheckClient(target, security, flag_prefix));
  arguments.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, kBetweenResolutionsMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);                // as many as that takes
  if (security.ca.empty()) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // in plaintext, not by way of $http_proxy
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (HasKey(security)) {
    auto source = std::make_shared<ApiKeySource>(security);
    RETRO_RETURN_IF_ERROR(OfFlag(StrCat("--", flag_prefix, "api-key-file"), source->Refresh()));
    interceptors.push_back(std::make_unique<ApiKeyInterceptorFactory>(std::move(source)));
  }
  RETRO_ASSIGN_OR_RETURN(const auto credentials, MakeChannelCredentials(security));
  return grpc::experimental::CreateCustomChannelWithInterceptors(target, credentials, arguments,
                                                                 std::move(interceptors));
}

}  // namespace retro
