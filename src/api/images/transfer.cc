#include "api/images/transfer.h"

#include <fmt/format.h>

#include "api/body.h"
#include "api/images/request.h"
#include "api/images/upload.h"
#include "api/respond.h"
#include "engine/images/transfers.h"

namespace virga::api {
namespace {

/// What the common part leaves out, and what cannot be done with images of such servers.
Result<engine::ImportImage> read_image(const Context& c, const json::object& body) {
  const Fields fields(body);
  VIRGA_CHECK(fields.only({"source", "aliases", "auto_update", "compression_algorithm", "expires_at", "filename", "format",
                           "profiles", "properties", "public"}));
  VIRGA_TRY(auto out, read_image_request(c, body));
  if (out.auto_update)
    return fail(Error(ErrorKind::unsupported, "field 'auto_update' is not implemented yet for images of another virga server")
                    .with_field("auto_update"));
  VIRGA_TRY(out.properties, fields.string_map("properties"));
  return out;
}

Result<engine::PullImage> read_pull(const Fields& source, engine::ImportImage image) {
  engine::PullImage out;
  out.image = std::move(image);
  VIRGA_TRY(out.server, source.string("server"));
  VIRGA_TRY(out.certificate, source.string("certificate"));
  VIRGA_TRY(out.fingerprint, source.string("fingerprint"));
  VIRGA_TRY(out.alias, source.string("alias"));
  VIRGA_TRY(out.secret, source.string("secret"));
  VIRGA_TRY(out.project, source.string("project"));
  if (!out.fingerprint.empty()) out.alias.clear();  // clients send both for an alias they have looked up
  return out;
}

}  // namespace

Result<engine::OperationPtr> image_from_server(Context& c, const json::object& body) {
  VIRGA_TRY(const auto object, Fields(body).object("source"));
  const Fields source(object, "source");
  VIRGA_CHECK(source.only({"alias", "certificate", "fingerprint", "image_type", "mode", "name", "project", "protocol", "secret",
                           "server", "type", "url"}));
  VIRGA_TRY(auto image, read_image(c, body));
  VIRGA_TRY(const auto mode, source.string("mode", "pull"));
  if (mode == "push") {
    VIRGA_TRY(image.expected_fingerprint, source.string("fingerprint"));
    return c.services.transfers.expect(c.caller(), std::move(image));
  }
  if (!mode.empty() && mode != "pull") return invalid("source.mode", "field 'source.mode' is either \"pull\" or \"push\"");
  VIRGA_TRY(const auto protocol, source.string("protocol"));
  if (!protocol.empty() && protocol != "incus")
    return fail(
        Error(ErrorKind::unsupported, fmt::format("images over the protocol '{}' are not implemented yet", protocol.substr(0, 40)))
            .with_field("source.protocol"));
  VIRGA_TRY(auto request, read_pull(source, std::move(image)));
  return c.services.transfers.pull(c.caller(), std::move(request));
}

bool is_brought(const Context& c) {
  return !c.request.headers.get("x-incus-secret").empty();
}

Task<Result<engine::OperationPtr>> image_that_is_brought(Context& c) {
  const auto& h = c.request.headers;
  VIRGA_CO_TRY(auto expected, c.services.transfers.take_expected(h.get("x-incus-secret"), h.get("x-incus-fingerprint")));
  c.project = expected.image.project;
  VIRGA_CO_TRY(auto brought, co_await receive_image(c));
  if (expected.image.profiles.empty()) expected.image.profiles = std::move(brought.profiles);
  co_return c.services.transfers.take_in(std::move(expected), std::move(brought));
}

Result<engine::Images::Ptr> readable_image(Context& c) {
  auto image = c.services.images.find(c.project, c.param(0));
  if (c.identity.trusted) return image;
  const auto secret = c.query("secret");
  if (image && ((*image)->is_public || (!secret.empty() && c.services.transfers.may_read(**image, secret)))) return image;
  // A stranger does not learn what there is.
  return fail(ErrorKind::not_found, fmt::format("no image '{}'", c.param(0).substr(0, 64)));
}

Task<Result<http::Response>> make_image_secret(Context& c) {
  VIRGA_CO_TRY(auto operation, c.services.transfers.let_read(c.caller(), c.project, c.param(0)));
  co_return accepted(*operation);
}

Task<Result<http::Response>> send_image(Context& c) {
  VIRGA_CO_TRY(const auto body, c.json());
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"target", "secret", "certificate", "aliases", "profiles", "project"}));
  engine::PushImage request;
  VIRGA_CO_TRY(request.target, fields.string("target"));
  VIRGA_CO_TRY(request.certificate, fields.string("certificate"));
  VIRGA_CO_TRY(request.secret, fields.string("secret"));
  VIRGA_CO_TRY(request.project, fields.string("project"));
  VIRGA_CO_TRY(request.profiles, fields.strings("profiles"));
  // The names are the target's own business: it was told them when it was asked to expect the image.
  VIRGA_CO_CHECK(read_image_aliases(body));
  VIRGA_CO_TRY(auto operation, c.services.transfers.push(c.caller(), c.project, c.param(0), std::move(request)));
  co_return accepted(*operation);
}

}  // namespace virga::api
