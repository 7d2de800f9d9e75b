#include "api/images/source.h"

#include <fmt/format.h>

#include <utility>

#include "api/body.h"
#include "api/images/request.h"
#include "api/images/transfer.h"
#include "engine/images/service.h"
#include "engine/instances/publish.h"
#include "engine/instances/service.h"

namespace virga::api {
namespace {

constexpr std::size_t most_body = 1u << 20;

/// The route streams its body, as it takes uploads too.
Task<Result<json::object>> read_body(Context& c) {
  std::string text;
  std::string buffer(16384, '\0');
  while (true) {
    VIRGA_CO_TRY(const std::size_t n, co_await c.request.body->read_some(buffer));
    if (n == 0) break;
    text.append(buffer, 0, n);
    if (text.size() > most_body) co_return fail(ErrorKind::invalid, "the request's body is larger than 1 MiB");
  }
  if (text.empty()) co_return fail(ErrorKind::invalid, "the request has no body");
  co_return parse_json_object(text);
}

Task<Result<engine::OperationPtr>> from_instance(Context& c, const json::object& body, const Fields& source) {
  const Fields fields(body);
  engine::PublishInstance request;
  VIRGA_CO_TRY(request.image, read_image_request(c, body));
  VIRGA_CO_TRY(request.properties, read_config(fields, "properties"));
  VIRGA_CO_TRY(auto compression, fields.string("compression_algorithm"));
  request.compression = compression;
  VIRGA_CO_TRY(auto format, fields.string("format"));
  if (!format.empty() && format != "unified")
    co_return fail(Error(ErrorKind::unsupported, "images of instances are unified tarballs").with_field("format"));
  if (request.image.auto_update)
    co_return invalid("auto_update", "an image of an instance has no source that it could be updated from");
  VIRGA_CO_TRY(auto name, source.string("name"));
  VIRGA_CO_TRY(auto project, source.string("project"));
  if (!project.empty() && project != c.project)
    co_return fail(Error(ErrorKind::unsupported, "an instance is published within its project").with_field("source.project"));
  if (const auto slash = name.find('/'); slash != std::string::npos) {
    request.snapshot = name.substr(slash + 1);
    name.resize(slash);
    if (request.snapshot.empty()) co_return invalid("source.name", "'source.name' names no snapshot");
  } else if (source.string("type").value_or("") == "snapshot") {
    co_return invalid("source.name", "a snapshot is named as INSTANCE/SNAPSHOT");
  }
  co_return c.services.instances.publish(c.caller(), c.project, name, std::move(request));
}

Result<engine::OperationPtr> from_server(Context& c, const json::object& body, const Fields& source) {
  const Fields fields(body);
  engine::FetchImage request;
  VIRGA_TRY(auto image, read_image_request(c, body));
  VIRGA_TRY(auto properties, read_config(fields, "properties"));
  if (properties) image.properties = std::move(*properties);
  request.image = std::move(image);
  VIRGA_TRY(request.source, read_image_source(source));
  request.source.reach = reach_of(c);
  return c.services.images.fetch(c.caller(), std::move(request));
}

}  // namespace

Result<engine::ImageSource> read_image_source(const Fields& source) {
  engine::ImageSource out;
  VIRGA_TRY(auto mode, source.string("mode"));
  if (!mode.empty() && mode != "pull")
    return fail(Error(ErrorKind::unsupported, "images are fetched by this server: field 'source.mode' must be \"pull\"")
                    .with_field("source.mode"));
  VIRGA_TRY(out.server, source.string("server"));
  VIRGA_TRY(out.protocol, source.string("protocol"));
  VIRGA_TRY(out.alias, source.string("alias"));
  VIRGA_TRY(out.fingerprint, source.string("fingerprint"));
  VIRGA_TRY(out.certificate, source.string("certificate"));
  VIRGA_TRY(out.secret, source.string("secret"));
  VIRGA_TRY(auto type, source.string("image_type"));
  if (!type.empty()) {
    VIRGA_TRY(out.type, parse_instance_type(type));
  }
  if (out.protocol.empty()) out.protocol = "incus";
  // The stock client calls an alias of such a server a fingerprint.
  if (out.alias.empty() && out.fingerprint.find_first_not_of("0123456789abcdef") != std::string::npos)
    out.alias = std::exchange(out.fingerprint, {});
  // Clients that have looked an alias up send what they found too; the alias is what can be followed.
  if (!out.alias.empty()) out.fingerprint.clear();
  return out;
}

Task<Result<engine::OperationPtr>> image_from_source(Context& c) {
  VIRGA_CO_TRY(auto body, co_await read_body(c));
  const Fields fields(body);
  VIRGA_CO_CHECK(fields.only({"source", "aliases", "auto_update", "compression_algorithm", "expires_at", "filename", "format",
                              "profiles", "properties", "public"}));
  VIRGA_CO_TRY(auto source_object, fields.object("source"));
  const Fields source(source_object, "source");
  // Clients send all of them, most of them empty.
  VIRGA_CO_CHECK(source.only({"alias", "certificate", "fingerprint", "image_type", "mode", "name", "project", "protocol", "secret",
                              "server", "type", "url"}));
  VIRGA_CO_TRY(auto type, source.string("type"));
  if (type == "instance" || type == "container" || type == "virtual-machine" || type == "snapshot") {
    for (const auto* field : {"alias", "certificate", "fingerprint", "image_type", "protocol", "secret", "server", "url"}) {
      VIRGA_CO_TRY(auto text, source.string(field));
      if (!text.empty())
        co_return invalid(fmt::format("source.{}", field),
                          fmt::format("'source.{}' has no meaning for an image of an instance", field));
    }
    co_return co_await from_instance(c, body, source);
  }
  VIRGA_CO_TRY(auto mode, source.string("mode"));
  VIRGA_CO_TRY(auto protocol, source.string("protocol"));
  if (type == "image" && protocol == "simplestreams") co_return from_server(c, body, source);
  // The stock client leaves the type out when it announces an image that another server will bring.
  if (type == "image" || (type.empty() && mode == "push")) co_return image_from_server(c, body);
  if (type == "url")
    co_return fail(
        Error(ErrorKind::unsupported, "images from a URL are not implemented yet: upload a tarball").with_field("source.type"));
  co_return invalid("source.type", "'source.type' must be an instance, a snapshot, an image or a url");
}

}  // namespace virga::api
