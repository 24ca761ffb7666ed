{{- define "pipeline.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "pipeline.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pipeline.labels" -}}
{{ include "pipeline.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "pipeline.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "pipeline.name" .) -}}
{{- end -}}

{{- /* Name of the Secret with the variables; empty: there is none. */ -}}
{{- define "pipeline.secret" -}}
{{- if .Values.secret.existing }}{{ .Values.secret.existing }}{{ else if .Values.secret.values }}{{ include "pipeline.name" . }}{{ end -}}
{{- end -}}

{{- /* The file: the configuration, and [http]. */ -}}
{{- define "pipeline.config" -}}
{{ .Values.config | trim }}

[http]
listen = "0.0.0.0:{{ int .Values.http.port }}"
{{- if .Values.http.tokenVariable }}
token = "${ {{- .Values.http.tokenVariable }}:?give it in the Secret}"
{{- end }}
{{- end -}}

{{- /* Longer than a drain may take: as in the configuration, 30 s by default, and 15 s more. */ -}}
{{- define "pipeline.graceSeconds" -}}
{{- if .Values.terminationGracePeriodSeconds -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- else -}}
{{- $drain := regexFind "(?m)^\\s*drain_timeout_ms\\s*=\\s*[0-9_]+" .Values.config | regexFind "[0-9_]+$" | replace "_" "" | default "30000" -}}
{{- add 15 (div (add (int64 $drain) 999) 1000) -}}
{{- end -}}
{{- end -}}

{{- /* Mistakes that would lose order or stay unseen. */ -}}
{{- define "pipeline.check" -}}
{{- $group := regexMatch "(?m)^\\s*consumer_group\\s*=" .Values.config -}}
{{- if regexMatch "(?m)^\\s*\\[http\\]" .Values.config -}}
{{- fail "config: leave [http] out; set http.port and http.tokenVariable" -}}
{{- end -}}
{{- if and (gt (int .Values.replicas) 1) (not $group) -}}
{{- fail "replicas: more than 1 needs consumer_group in [iggy] of config; without it, every pod reads all messages" -}}
{{- end -}}
{{- if and (or .Values.autoscaling.hpa.enabled .Values.autoscaling.keda.enabled) (not $group) -}}
{{- fail "autoscaling: needs consumer_group in [iggy] of config" -}}
{{- end -}}
{{- if and .Values.autoscaling.hpa.enabled .Values.autoscaling.keda.enabled -}}
{{- fail "autoscaling: enable hpa or keda, not both" -}}
{{- end -}}
{{- if and .Values.http.tokenVariable (not (include "pipeline.secret" .)) -}}
{{- fail "http.tokenVariable: needs secret.existing or secret.values with that key" -}}
{{- end -}}
{{- end -}}
