{{- define "autotag.name" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "autotag.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "autotag.connectSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-connect
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "autotag.labels" -}}
{{ include "autotag.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "autotag.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ printf "%s@%s" .repository .digest }}{{ else }}{{ printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The Secret that is mounted as the secrets directory; empty when there is none. */}}
{{- define "autotag.secret" -}}
{{- if .Values.secrets.existingSecret }}{{ .Values.secrets.existingSecret }}{{ else if .Values.secrets.values }}{{ include "autotag.name" . }}{{ end -}}
{{- end -}}

{{/* http or https: what the service speaks. */}}
{{- define "autotag.scheme" -}}
{{- .Values.http.scheme | default (ternary "https" "http" (ne .Values.http.tls.existingSecret "")) -}}
{{- end -}}

{{/* The claim for the state of a single pod; empty when its state is an emptyDir. */}}
{{- define "autotag.stateClaim" -}}
{{- if .Values.state.existingClaim }}{{ .Values.state.existingClaim }}{{ else if .Values.state.claim.create }}{{ include "autotag.name" . }}-state{{ end -}}
{{- end -}}

{{/* Where the settings come from, for every role. */}}
{{- define "autotag.environment" -}}
- {name: AUTOTAG_CONFIG, value: /etc/autotag/autotag.toml}
- {name: AUTOTAG_AMQP__URL, value: {{ .Values.amqp.url | quote }}}
- {name: AUTOTAG_AMQP__QUEUE_PREFIX, value: {{ .Values.amqp.queuePrefix | quote }}}
- {name: AUTOTAG_AMQP__DECLARE, value: {{ .Values.amqp.declare | quote }}}
- {name: AUTOTAG_HTTP__HOST, value: 0.0.0.0}
- {name: AUTOTAG_HTTP__PORT, value: {{ .Values.http.port | quote }}}
{{- if .Values.http.tls.existingSecret }}
- {name: AUTOTAG_HTTP__CERTIFICATE_FILE, value: /etc/autotag/tls/tls.crt}
- {name: AUTOTAG_HTTP__KEY_FILE, value: /etc/autotag/tls/tls.key}
{{- end }}
{{- if and .Values.ingress.enabled (ne .Values.ingress.path "/") }}
- {name: AUTOTAG_HTTP__ROOT_PATH, value: {{ .Values.ingress.path }}}
{{- end }}
- {name: AUTOTAG_SHUTDOWN_GRACE_S, value: {{ .Values.shutdownGraceSeconds | quote }}}
{{- if include "autotag.secret" . }}
- {name: AUTOTAG_SECRETS_DIR, value: /etc/autotag/secrets}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "autotag.settingsMounts" -}}
- {name: config, mountPath: /etc/autotag/autotag.toml, subPath: autotag.toml, readOnly: true}
{{- if include "autotag.secret" . }}
- {name: secrets, mountPath: /etc/autotag/secrets, readOnly: true}
{{- end }}
{{- if .Values.http.tls.existingSecret }}
- {name: tls, mountPath: /etc/autotag/tls, readOnly: true}
{{- end }}
- {name: state, mountPath: /var/lib/autotag}
- {name: run, mountPath: /run/autotag}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "autotag.settingsVolumes" -}}
- name: config
  configMap: {name: {{ include "autotag.name" . }}}
{{- if include "autotag.secret" . }}
- name: secrets
  secret: {secretName: {{ include "autotag.secret" . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.http.tls.existingSecret }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
- name: run
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end -}}

{{- define "autotag.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "autotag.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "autotag.probes" -}}
{{- $path := dict "startup" "/startupz" "liveness" "/livez" "readiness" "/readyz" -}}
{{- range $kind, $settings := .Values.probes }}
{{ $kind }}Probe:
  httpGet: {path: {{ get $path $kind }}, port: http, scheme: {{ include "autotag.scheme" $ | upper }}}
  timeoutSeconds: 3
  {{- toYaml $settings | nindent 2 }}
{{- end }}
{{- end -}}
